//! Writes a proving key, point by point, in the library's format.

use std::io::{self, Write};

use bellperson::{Circuit, SynthesisError};
use blstrs::Scalar;
use rayon::prelude::*;
use tokio_util::sync::CancellationToken;

use super::assembly::CircuitShape;
use super::fixed_base::{BATCH, CurveGroup, FixedBaseTable, G1, G2};
use super::qap::{QapAtTau, invert};
use super::trapdoor::Trapdoor;

/// Why no key was written.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The circuit cannot be synthesised, or leaves a variable unconstrained.
    #[error("the circuit has no parameters")]
    Synthesis(#[from] SynthesisError),
    /// The key could not be written.
    #[error("cannot write the proving key")]
    Write(#[from] io::Error),
    /// A count does not fit the format.
    #[error("the circuit is too large for the parameter format")]
    TooLarge,
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// The tables of both generators: made once, used for every circuit.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) g1: FixedBaseTable<G1>,
    pub(crate) g2: FixedBaseTable<G2>,
}

impl Tables {
    pub(crate) fn new() -> Self {
        let (g1, g2) = rayon::join(FixedBaseTable::new, FixedBaseTable::new);
        Self { g1, g2 }
    }
}

/// One run of the generator: where to write, whom to tell, when to stop.
pub(crate) struct Generation<'a, W> {
    tables: &'a Tables,
    out: W,
    cancel: &'a CancellationToken,
    progress: &'a dyn Fn(f64),
    done: usize,
    total: usize,
}

/// Points that are made between two writes, two looks at the cancellation and two reports of progress.
const BLOCK: usize = 64 * BATCH;

/// What synthesis takes of the whole, in hundredths; measured on the 2 KiB circuits.
const SYNTHESIS_SHARE: f64 = 0.15;

/// A point of the second group costs as much as this many of the first.
const G2_WEIGHT: usize = 3;

/// Writes the parameters of a circuit in bellperson's format and returns the verifying key's bytes.
///
/// `make` is called twice and must return the same blank circuit each time. Tables are made anew, so this is for tests
/// and benches; [`ParameterCache::ensure`](super::ParameterCache::ensure) shares them between circuits.
///
/// # Errors
/// When the circuit cannot be synthesised, the writer fails, or the token is cancelled.
pub fn generate_to<C: Circuit<Scalar>>(
    make: impl Fn() -> C,
    trapdoor: &Trapdoor,
    out: impl Write,
    cancel: &CancellationToken,
) -> Result<Vec<u8>, GenerateError> {
    Generation::new(&Tables::new(), out, cancel, &|_| ()).run(make, trapdoor)
}

impl<'a, W: Write> Generation<'a, W> {
    pub(crate) fn new(tables: &'a Tables, out: W, cancel: &'a CancellationToken, progress: &'a dyn Fn(f64)) -> Self {
        Self { tables, out, cancel, progress, done: 0, total: 0 }
    }

    /// Writes everything and returns the bytes of the verifying key, which are also the first in the file.
    pub(crate) fn run<C: Circuit<Scalar>>(
        mut self,
        make: impl Fn() -> C,
        trapdoor: &Trapdoor,
    ) -> Result<Vec<u8>, GenerateError> {
        let (key, qap) = self.key(make, trapdoor)?;
        let h_len = qap.domain.size - 1;
        self.total = h_len + qap.l.len() + qap.a.len() + qap.b.len() * (1 + G2_WEIGHT);
        self.out.write_all(&key)?;

        let tables = self.tables;
        let delta_inverse = invert(&trapdoor.delta)?;
        self.section(h_len, 1, |from, to| points(&tables.g1, &qap.h(from..to, &delta_inverse)))?;
        self.scalars(&tables.g1, 1, &qap.l)?;
        self.scalars(&tables.g1, 1, &qap.a)?;
        self.scalars(&tables.g1, 1, &qap.b)?;
        self.scalars(&tables.g2, G2_WEIGHT, &qap.b)?;
        self.out.flush()?;
        Ok(key)
    }

    /// Writes the verifying key alone, and returns its bytes.
    pub(crate) fn run_for_key<C: Circuit<Scalar>>(
        mut self,
        make: impl Fn() -> C,
        trapdoor: &Trapdoor,
    ) -> Result<Vec<u8>, GenerateError> {
        let (key, _) = self.key(make, trapdoor)?;
        self.out.write_all(&key)?;
        self.out.flush()?;
        Ok(key)
    }

    /// The bytes of the verifying key, and what the rest is made of.
    fn key<C: Circuit<Scalar>>(
        &mut self,
        make: impl Fn() -> C,
        trapdoor: &Trapdoor,
    ) -> Result<(Vec<u8>, QapAtTau), GenerateError> {
        let shape = CircuitShape::of(make())?;
        self.report(SYNTHESIS_SHARE / 3.0)?;
        let qap = QapAtTau::new(make(), shape, trapdoor)?;
        self.report(SYNTHESIS_SHARE)?;
        let mut key = trapdoor.key_head(&self.tables.g1, &self.tables.g2);
        key.extend(count(qap.ic.len())?);
        key.extend(points(&self.tables.g1, &qap.ic));
        Ok((key, qap))
    }

    fn scalars<C: CurveGroup>(
        &mut self,
        table: &FixedBaseTable<C>,
        weight: usize,
        scalars: &[Scalar],
    ) -> Result<(), GenerateError> {
        self.section(scalars.len(), weight, |from, to| points(table, scalars.get(from..to).unwrap_or_default()))
    }

    /// One array of points: its length, then `make(from, to)` for consecutive ranges, several at a time.
    fn section(
        &mut self,
        len: usize,
        weight: usize,
        make: impl Fn(usize, usize) -> Vec<u8> + Sync,
    ) -> Result<(), GenerateError> {
        self.out.write_all(&count(len)?)?;
        for start in (0..len).step_by(BLOCK) {
            let end = len.min(start + BLOCK);
            let parts: Vec<Vec<u8>> =
                (start..end).into_par_iter().step_by(BATCH).map(|from| make(from, end.min(from + BATCH))).collect();
            for part in &parts {
                self.out.write_all(part)?;
            }
            self.done += (end - start) * weight;
            let points_done = self.done as f64 / self.total.max(1) as f64;
            self.report(SYNTHESIS_SHARE + (1.0 - SYNTHESIS_SHARE) * points_done)?;
        }
        Ok(())
    }

    fn report(&self, fraction: f64) -> Result<(), GenerateError> {
        if self.cancel.is_cancelled() {
            return Err(GenerateError::Cancelled);
        }
        (self.progress)(fraction);
        Ok(())
    }
}

impl<W> std::fmt::Debug for Generation<'_, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation").field("done", &self.done).field("total", &self.total).finish_non_exhaustive()
    }
}

fn count(len: usize) -> Result<[u8; 4], GenerateError> {
    u32::try_from(len).map(u32::to_be_bytes).map_err(|_| GenerateError::TooLarge)
}

fn points<C: CurveGroup>(table: &FixedBaseTable<C>, scalars: &[Scalar]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(scalars.len() * C::BYTES);
    for point in table.multiply(scalars) {
        C::serialize(&point, &mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use bellperson::groth16::{
        Parameters, create_random_proof, generate_parameters, prepare_verifying_key, verify_proof,
    };
    use bellperson::{ConstraintSystem, LinearCombination};
    use blstrs::{Bls12, G1Projective, G2Projective};
    use ff::Field;
    use group::Group;
    use rand::rngs::OsRng;

    use super::*;

    /// `x^(2^n) + x + 5 = y` with public `y`, and one product whose coefficients are not one.
    #[derive(Clone)]
    struct Power {
        x: Option<Scalar>,
        squarings: usize,
    }

    impl Power {
        fn y(&self) -> Option<Scalar> {
            self.x.map(|x| x.pow_vartime([1 << self.squarings]) + x + Scalar::from(5))
        }
    }

    impl Circuit<Scalar> for Power {
        fn synthesize<CS: ConstraintSystem<Scalar>>(self, cs: &mut CS) -> Result<(), SynthesisError> {
            let missing = || SynthesisError::AssignmentMissing;
            let mut value = self.x;
            let x = cs.alloc(|| "x", || value.ok_or_else(missing))?;
            let mut power = x;
            for _ in 0..self.squarings {
                value = value.map(|v| v.square());
                let next = cs.alloc(|| "square", || value.ok_or_else(missing))?;
                cs.enforce(|| "square", |lc| lc + power, |lc| lc + power, |lc| lc + next);
                power = next;
            }
            let y = cs.alloc_input(|| "y", || self.y().ok_or_else(missing))?;
            let seven = Scalar::from(7);
            let sum: LinearCombination<Scalar> =
                LinearCombination::zero() + (seven, x) + (seven, power) + (Scalar::from(35), CS::one());
            cs.enforce(|| "sum", |_| sum, |lc| lc + CS::one(), |lc| lc + (seven, y));
            Ok(())
        }
    }

    fn ours(circuit: &Power, trapdoor: &Trapdoor) -> (Vec<u8>, Vec<u8>) {
        let mut file = Vec::new();
        let key = generate_to(|| circuit.clone(), trapdoor, &mut file, &CancellationToken::new()).unwrap();
        (file, key)
    }

    #[test]
    fn the_file_equals_the_stock_generator_s_byte_for_byte() {
        // 5, 8 and 1100 constraints: inside a domain, close to its end, and in more than one batch.
        for squarings in [2, 5, 1097] {
            let circuit = Power { x: None, squarings };
            let t = Trapdoor::published("toy");
            let (g1, g2) = (G1Projective::generator(), G2Projective::generator());
            let stock =
                generate_parameters::<Bls12, _>(circuit.clone(), g1, g2, t.alpha, t.beta, t.gamma, t.delta, t.tau)
                    .unwrap();
            let (mut stock_file, mut stock_key) = (Vec::new(), Vec::new());
            stock.write(&mut stock_file).unwrap();
            stock.vk.write(&mut stock_key).unwrap();
            let (file, key) = ours(&circuit, &t);
            assert_eq!(key, stock_key, "{squarings}");
            assert_eq!(file, stock_file, "{squarings}");
        }
    }

    #[test]
    fn a_proof_verifies_and_one_for_another_statement_does_not() {
        let blank = Power { x: None, squarings: 5 };
        let (file, _) = ours(&blank, &Trapdoor::published("toy"));
        let params = Parameters::<Bls12>::read(file.as_slice(), true).unwrap();
        let circuit = Power { x: Some(Scalar::from(3)), squarings: 5 };
        let y = circuit.y().unwrap();
        let proof = create_random_proof(circuit, &params, &mut OsRng).unwrap();
        let key = prepare_verifying_key(&params.vk);
        assert!(verify_proof(&key, &proof, &[y]).unwrap());
        assert!(!verify_proof(&key, &proof, &[y + Scalar::ONE]).unwrap());
    }

    #[test]
    fn an_unconstrained_variable_is_refused() {
        struct Loose;
        impl Circuit<Scalar> for Loose {
            fn synthesize<CS: ConstraintSystem<Scalar>>(self, cs: &mut CS) -> Result<(), SynthesisError> {
                cs.alloc(|| "loose", || Ok(Scalar::ONE)).map(drop)
            }
        }
        let error = generate_to(|| Loose, &Trapdoor::published("toy"), io::sink(), &CancellationToken::new());
        assert!(matches!(error, Err(GenerateError::Synthesis(SynthesisError::UnconstrainedVariable))));
    }

    #[test]
    fn a_cancelled_generation_stops() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let made = generate_to(|| Power { x: None, squarings: 2 }, &Trapdoor::published("toy"), io::sink(), &cancel);
        assert!(matches!(made, Err(GenerateError::Cancelled)));
    }
}
