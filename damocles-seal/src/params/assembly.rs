//! Two passes over a circuit: one counts it, one adds its coefficients up at tau.

use bellperson::{Circuit, ConstraintSystem, Index, LinearCombination, SynthesisError, Variable};
use blstrs::Scalar;
use ff::Field;

/// How large a circuit is. The first pass; linear combinations are not even built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CircuitShape {
    pub(crate) inputs: usize,
    pub(crate) aux: usize,
    /// Without the one constraint per input that the generator adds.
    pub(crate) constraints: usize,
}

impl CircuitShape {
    pub(crate) fn of<C: Circuit<Scalar>>(circuit: C) -> Result<Self, SynthesisError> {
        let mut shape = Self::default();
        shape.alloc_input(|| "", || Ok(Scalar::ONE))?;
        circuit.synthesize(&mut shape)?;
        Ok(shape)
    }

    /// Constraints with those that the generator adds to make every input occur in one.
    pub(crate) fn rows(&self) -> usize {
        self.constraints + self.inputs
    }
}

/// The values at tau of one kind of polynomial (A, B or C), one per variable.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    pub(crate) inputs: Vec<Scalar>,
    pub(crate) aux: Vec<Scalar>,
}

impl Columns {
    fn add(&mut self, combination: &LinearCombination<Scalar>, weight: &Scalar) {
        for (variable, coefficient) in combination.iter() {
            let column = match variable.0 {
                Index::Input(index) => self.inputs.get_mut(index),
                Index::Aux(index) => self.aux.get_mut(index),
            };
            if let Some(value) = column {
                // Most coefficients of the Filecoin circuits are one.
                *value += if *coefficient == Scalar::ONE { *weight } else { *coefficient * weight };
            }
        }
    }
}

/// The second pass: adds each coefficient, times the Lagrange polynomial of its constraint at tau, to its variable.
#[derive(Debug)]
pub(crate) struct Evaluation<'a> {
    pub(crate) a: Columns,
    pub(crate) b: Columns,
    pub(crate) c: Columns,
    lagrange: &'a [Scalar],
    seen: CircuitShape,
}

impl<'a> Evaluation<'a> {
    /// `lagrange[j]` is the j-th Lagrange polynomial of the domain at tau.
    pub(crate) fn of<C: Circuit<Scalar>>(
        circuit: C,
        shape: CircuitShape,
        lagrange: &'a [Scalar],
    ) -> Result<Self, SynthesisError> {
        let columns = || Columns { inputs: vec![Scalar::ZERO; shape.inputs], aux: vec![Scalar::ZERO; shape.aux] };
        let mut evaluation = Self { a: columns(), b: columns(), c: columns(), lagrange, seen: CircuitShape::default() };
        evaluation.alloc_input(|| "", || Ok(Scalar::ONE))?;
        circuit.synthesize(&mut evaluation)?;
        if evaluation.seen != shape {
            // A blank circuit that synthesises differently from one call to the next has no parameters.
            return Err(SynthesisError::MalformedVerifyingKey);
        }
        // x * 0 = 0 for each input, so that the inputs' part of the verifying key has no gaps.
        for index in 0..shape.inputs {
            evaluation.enforce(|| "", |lc| lc + Variable(Index::Input(index)), |lc| lc, |lc| lc);
        }
        Ok(evaluation)
    }
}

impl ConstraintSystem<Scalar> for CircuitShape {
    type Root = Self;

    fn alloc<F, A, AR>(&mut self, _: A, _: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Scalar, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.aux += 1;
        Ok(Variable(Index::Aux(self.aux - 1)))
    }

    fn alloc_input<F, A, AR>(&mut self, _: A, _: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Scalar, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.inputs += 1;
        Ok(Variable(Index::Input(self.inputs - 1)))
    }

    fn enforce<A, AR, LA, LB, LC>(&mut self, _: A, _: LA, _: LB, _: LC)
    where
        A: FnOnce() -> AR,
        AR: Into<String>,
        LA: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
        LB: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
        LC: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
    {
        self.constraints += 1;
    }

    fn push_namespace<NR, N>(&mut self, _: N)
    where
        NR: Into<String>,
        N: FnOnce() -> NR,
    {
    }

    fn pop_namespace(&mut self) {}

    fn get_root(&mut self) -> &mut Self::Root {
        self
    }
}

impl ConstraintSystem<Scalar> for Evaluation<'_> {
    type Root = Self;

    fn alloc<F, A, AR>(&mut self, annotation: A, value: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Scalar, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.seen.alloc(annotation, value)
    }

    fn alloc_input<F, A, AR>(&mut self, annotation: A, value: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Scalar, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.seen.alloc_input(annotation, value)
    }

    fn enforce<A, AR, LA, LB, LC>(&mut self, _: A, a: LA, b: LB, c: LC)
    where
        A: FnOnce() -> AR,
        AR: Into<String>,
        LA: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
        LB: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
        LC: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
    {
        if let Some(weight) = self.lagrange.get(self.seen.constraints) {
            self.a.add(&a(LinearCombination::zero()), weight);
            self.b.add(&b(LinearCombination::zero()), weight);
            self.c.add(&c(LinearCombination::zero()), weight);
        }
        self.seen.constraints += 1;
    }

    fn push_namespace<NR, N>(&mut self, _: N)
    where
        NR: Into<String>,
        N: FnOnce() -> NR,
    {
    }

    fn pop_namespace(&mut self) {}

    fn get_root(&mut self) -> &mut Self::Root {
        self
    }
}
