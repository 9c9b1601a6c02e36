//! The circuit's polynomials at tau, as scalars.

use bellperson::{Circuit, SynthesisError};
use blstrs::Scalar;
use ff::{Field, PrimeField};
use rayon::prelude::*;

use super::assembly::{CircuitShape, Columns, Evaluation};
use super::trapdoor::Trapdoor;

/// The scalars of which the proving key's points are multiples.
#[derive(Debug)]
pub(crate) struct QapAtTau {
    pub(crate) domain: Domain,
    /// `(beta * a + alpha * b + c) / gamma` of the inputs.
    pub(crate) ic: Vec<Scalar>,
    /// `(beta * a + alpha * b + c) / delta` of the other variables.
    pub(crate) l: Vec<Scalar>,
    /// `a` of inputs and other variables, without the zeros.
    pub(crate) a: Vec<Scalar>,
    /// `b` of inputs and other variables, without the zeros.
    pub(crate) b: Vec<Scalar>,
}

/// The evaluation domain: the roots of unity whose number is the first power of two that holds all constraints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Domain {
    pub(crate) size: usize,
    omega: Scalar,
    tau: Scalar,
    /// The domain's vanishing polynomial at tau.
    vanishing: Scalar,
}

/// Elements that one task of the pool works on.
const CHUNK: usize = 1 << 13;

impl QapAtTau {
    pub(crate) fn new<C: Circuit<Scalar>>(
        circuit: C,
        shape: CircuitShape,
        trapdoor: &Trapdoor,
    ) -> Result<Self, SynthesisError> {
        let domain = Domain::new(shape.rows(), trapdoor.tau)?;
        let lagrange = domain.lagrange();
        let Evaluation { a, b, c, .. } = Evaluation::of(circuit, shape, &lagrange)?;
        drop(lagrange);
        let gamma_inverse = invert(&trapdoor.gamma)?;
        let delta_inverse = invert(&trapdoor.delta)?;
        let combine = |a: &[Scalar], b: &[Scalar], c: &[Scalar], inverse: &Scalar| -> Vec<Scalar> {
            a.par_iter()
                .zip(b)
                .zip(c)
                .map(|((a, b), c)| (*a * trapdoor.beta + *b * trapdoor.alpha + c) * inverse)
                .collect()
        };
        let ic = combine(&a.inputs, &b.inputs, &c.inputs, &gamma_inverse);
        let l = combine(&a.aux, &b.aux, &c.aux, &delta_inverse);
        if l.contains(&Scalar::ZERO) {
            return Err(SynthesisError::UnconstrainedVariable);
        }
        Ok(Self { domain, ic, l, a: without_zeros(a), b: without_zeros(b) })
    }

    /// `tau^i * t(tau) / delta` for the given exponents, which may be any part of `0 .. domain.size - 1`.
    pub(crate) fn h(&self, exponents: std::ops::Range<usize>, delta_inverse: &Scalar) -> Vec<Scalar> {
        let factor = self.domain.vanishing * delta_inverse;
        let first = self.domain.tau.pow_vartime([exponents.start as u64]) * factor;
        std::iter::successors(Some(first), |power| Some(*power * self.domain.tau)).take(exponents.len()).collect()
    }
}

impl Domain {
    fn new(rows: usize, tau: Scalar) -> Result<Self, SynthesisError> {
        let size = rows.checked_next_power_of_two().ok_or(SynthesisError::PolynomialDegreeTooLarge)?;
        let exponent = size.trailing_zeros();
        if exponent >= Scalar::S {
            return Err(SynthesisError::PolynomialDegreeTooLarge);
        }
        let omega = (exponent..Scalar::S).fold(Scalar::ROOT_OF_UNITY, |root, _| root.square());
        let vanishing = tau.pow_vartime([size as u64]) - Scalar::ONE;
        if vanishing == Scalar::ZERO {
            return Err(SynthesisError::DivisionByZero);
        }
        Ok(Self { size, omega, tau, vanishing })
    }

    /// All Lagrange polynomials of the domain at tau: `omega^j * (tau^m - 1) / (m * (tau - omega^j))`.
    fn lagrange(&self) -> Vec<Scalar> {
        let size_inverse = Scalar::from(self.size as u64).invert().unwrap_or(Scalar::ONE);
        let factor = self.vanishing * size_inverse;
        let mut values = vec![Scalar::ZERO; self.size];
        values.par_chunks_mut(CHUNK).enumerate().for_each(|(index, chunk)| {
            let mut root = self.omega.pow_vartime([(index * CHUNK) as u64]);
            let mut roots = Vec::with_capacity(chunk.len());
            let mut product = Scalar::ONE;
            for value in chunk.iter_mut() {
                // First the products of all denominators so far, then backwards the single inverses.
                *value = product;
                product *= self.tau - root;
                roots.push(root);
                root *= self.omega;
            }
            // Tau is no root of unity (its vanishing polynomial is not zero), so no denominator is zero.
            let mut inverse = product.invert().unwrap_or(Scalar::ONE) * factor;
            for (value, root) in chunk.iter_mut().zip(&roots).rev() {
                *value *= inverse * root;
                inverse *= self.tau - root;
            }
        });
        values
    }
}

pub(crate) fn invert(scalar: &Scalar) -> Result<Scalar, SynthesisError> {
    Option::from(scalar.invert()).ok_or(SynthesisError::UnexpectedIdentity)
}

fn without_zeros(columns: Columns) -> Vec<Scalar> {
    let mut all = columns.inputs;
    all.extend(columns.aux);
    all.retain(|value| *value != Scalar::ZERO);
    all
}
