//! Many multiplications of one fixed point: a table of signed windows, and additions that share their inversions.

use std::fmt;

use blstrs::{Fp, Fp2, G1Affine, G1Projective, G2Affine, G2Projective, Scalar};
use ff::{Field, PrimeField};
use group::{Curve, Group, prime::PrimeCurveAffine};
use rayon::prelude::*;

/// Multiples of one generator, by window and digit.
///
/// A scalar is written with sixteen signed digits of sixteen bits; `windows[w][d - 1]` is `d * 2^(16 w)` times the
/// generator for `1 <= d <= 2^15`, and a negative digit takes the same entry with its y negated.
pub(crate) struct FixedBaseTable<C: CurveGroup> {
    windows: Vec<Vec<Point<C::Field>>>,
}

/// One of the two groups of BLS12-381, with the affine arithmetic that the projective types do not offer.
pub(crate) trait CurveGroup: Send + Sync + 'static {
    /// The field of the coordinates.
    type Field: Field;
    /// Bytes of one point in uncompressed form.
    const BYTES: usize;
    /// `2^doublings` times the group's generator.
    fn generator_doubled(doublings: usize) -> Point<Self::Field>;
    /// Appends the point in uncompressed form.
    fn serialize(point: &Point<Self::Field>, out: &mut Vec<u8>);
}

/// An affine point; `y` is zero only for the identity, because the groups have prime order.
#[derive(Clone, Copy)]
pub(crate) struct Point<F> {
    x: F,
    y: F,
}

/// The first group: proof elements A and C, and most of the proving key.
#[derive(Debug)]
pub(crate) enum G1 {}

/// The second group: proof element B.
#[derive(Debug)]
pub(crate) enum G2 {}

/// Bits of a digit. Sixteen digits cover the 255 bits of a scalar with room for the last carry.
const DIGIT_BITS: usize = 16;
const WINDOWS: usize = 256 / DIGIT_BITS;
const HALF: i32 = 1 << (DIGIT_BITS - 1);
const FULL: i32 = 1 << DIGIT_BITS;

/// Scalars whose sums share one inversion: enough to make it free, few enough to stay in the second-level cache.
pub(crate) const BATCH: usize = 512;

impl<C: CurveGroup> FixedBaseTable<C> {
    pub(crate) fn new() -> Self {
        let windows = (0..WINDOWS).into_par_iter().map(|w| multiples(C::generator_doubled(w * DIGIT_BITS))).collect();
        Self { windows }
    }

    /// The generator times each scalar, in order.
    pub(crate) fn multiply(&self, scalars: &[Scalar]) -> Vec<Point<C::Field>> {
        let digits: Vec<[i32; WINDOWS]> = scalars.iter().map(signed_digits).collect();
        let mut sums = vec![Point::IDENTITY; scalars.len()];
        let mut terms = Vec::with_capacity(scalars.len());
        let mut scratch = Scratch::default();
        for (w, window) in self.windows.iter().enumerate() {
            terms.clear();
            terms.extend(digits.iter().map(|d| d.get(w).map_or(Point::IDENTITY, |digit| pick(window, *digit))));
            add_each(&mut sums, &terms, &mut scratch);
        }
        sums
    }

    /// The generator times one scalar, in uncompressed form.
    pub(crate) fn serialized(&self, scalar: &Scalar) -> Vec<u8> {
        let mut out = Vec::with_capacity(C::BYTES);
        for point in self.multiply(std::slice::from_ref(scalar)) {
            C::serialize(&point, &mut out);
        }
        out
    }
}

impl<C: CurveGroup> fmt::Debug for FixedBaseTable<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FixedBaseTable").field("windows", &self.windows.len()).finish()
    }
}

impl<F: Field> Point<F> {
    pub(crate) const IDENTITY: Self = Self { x: F::ZERO, y: F::ZERO };

    pub(crate) fn is_identity(&self) -> bool {
        self.y == F::ZERO
    }

    fn negated(self) -> Self {
        Self { x: self.x, y: -self.y }
    }
}

impl CurveGroup for G1 {
    type Field = Fp;
    const BYTES: usize = 96;

    fn generator_doubled(doublings: usize) -> Point<Fp> {
        let point = (0..doublings).fold(G1Projective::generator(), |p, _| p.double()).to_affine();
        Point { x: point.x(), y: point.y() }
    }

    fn serialize(point: &Point<Fp>, out: &mut Vec<u8>) {
        let affine = if point.is_identity() {
            G1Affine::identity()
        } else {
            G1Affine::from_raw_unchecked(point.x, point.y, false)
        };
        out.extend_from_slice(&affine.to_uncompressed());
    }
}

impl CurveGroup for G2 {
    type Field = Fp2;
    const BYTES: usize = 192;

    fn generator_doubled(doublings: usize) -> Point<Fp2> {
        let point = (0..doublings).fold(G2Projective::generator(), |p, _| p.double()).to_affine();
        Point { x: point.x(), y: point.y() }
    }

    fn serialize(point: &Point<Fp2>, out: &mut Vec<u8>) {
        let affine = if point.is_identity() {
            G2Affine::identity()
        } else {
            G2Affine::from_raw_unchecked(point.x, point.y, false)
        };
        out.extend_from_slice(&affine.to_uncompressed());
    }
}

/// What one round of additions needs, kept between rounds.
struct Scratch<F> {
    denominators: Vec<F>,
    prefixes: Vec<F>,
}

impl<F> Default for Scratch<F> {
    fn default() -> Self {
        Self { denominators: Vec::new(), prefixes: Vec::new() }
    }
}

/// `1 * base ..= 2^15 * base`: the known multiples plus the largest of them give the next as many.
fn multiples<F: Field>(base: Point<F>) -> Vec<Point<F>> {
    let wanted = 1 << (DIGIT_BITS - 1);
    let mut known = Vec::with_capacity(wanted);
    known.push(base);
    let mut scratch = Scratch::default();
    while let (true, Some(largest)) = (known.len() < wanted, known.last().copied()) {
        let mut next = known.clone();
        let step = vec![largest; next.len()];
        add_each(&mut next, &step, &mut scratch);
        known.extend_from_slice(&next);
    }
    known
}

/// The digits of a scalar in `-2^15 ..= 2^15 - 1`, lowest first.
fn signed_digits(scalar: &Scalar) -> [i32; WINDOWS] {
    let mut digits = [0; WINDOWS];
    let mut carry = 0;
    for (digit, bytes) in digits.iter_mut().zip(scalar.to_repr().chunks_exact(DIGIT_BITS / 8)) {
        let value = carry + bytes.iter().rev().fold(0, |value, byte| (value << 8) | i32::from(*byte));
        // The scalar is below 2^255, so the last digit never reaches the half and no carry is lost.
        carry = i32::from(value >= HALF);
        *digit = value - carry * FULL;
    }
    digits
}

fn pick<F: Field>(window: &[Point<F>], digit: i32) -> Point<F> {
    let Some(index) = usize::try_from(digit.unsigned_abs()).ok().and_then(|d| d.checked_sub(1)) else {
        return Point::IDENTITY;
    };
    let point = window.get(index).copied().unwrap_or(Point::IDENTITY);
    if digit < 0 { point.negated() } else { point }
}

/// `sums[i] += terms[i]` for every `i`, with one inversion for all of them.
fn add_each<F: Field>(sums: &mut [Point<F>], terms: &[Point<F>], scratch: &mut Scratch<F>) {
    scratch.denominators.clear();
    scratch.prefixes.clear();
    let mut product = F::ONE;
    for (sum, term) in sums.iter_mut().zip(terms) {
        // A denominator of zero stands for a sum that is already final.
        let denominator = slope_denominator(sum, term);
        scratch.denominators.push(denominator);
        scratch.prefixes.push(product);
        if denominator != F::ZERO {
            product *= &denominator;
        }
    }
    // The product of non-zero elements of a field is invertible.
    let mut inverse = product.invert().unwrap_or(F::ONE);
    let rows = sums.iter_mut().zip(terms).zip(scratch.denominators.iter().zip(&scratch.prefixes));
    for ((sum, term), (denominator, prefix)) in rows.rev() {
        if *denominator == F::ZERO {
            continue;
        }
        let own_inverse = inverse * prefix;
        inverse *= denominator;
        let rise = if sum.x == term.x {
            let square = sum.x.square();
            square.double() + square
        } else {
            term.y - sum.y
        };
        let slope = rise * own_inverse;
        let x = slope.square() - sum.x - term.x;
        sum.y = slope * (sum.x - x) - sum.y;
        sum.x = x;
    }
}

/// The denominator of the slope through both points, or zero after it has settled a sum that needs no slope.
fn slope_denominator<F: Field>(sum: &mut Point<F>, term: &Point<F>) -> F {
    if term.is_identity() {
        return F::ZERO;
    }
    if sum.is_identity() {
        *sum = *term;
        return F::ZERO;
    }
    let difference = term.x - sum.x;
    if difference != F::ZERO {
        return difference;
    }
    if sum.y == term.y {
        return sum.y.double();
    }
    *sum = Point::IDENTITY;
    F::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalars() -> Vec<Scalar> {
        let two_to_16 = Scalar::from(1_u64 << 16);
        // The order is 0x73ed... with sixteen digits: this one makes the last addition meet its own negative's image.
        let top = two_to_16.pow_vartime([15]) * Scalar::from(0x73ee_u64);
        let mut all = vec![
            Scalar::ZERO,
            Scalar::ONE,
            -Scalar::ONE,
            Scalar::from(0x7fff_u64),
            Scalar::from(0x8000_u64),
            Scalar::from(0x8001_u64),
            Scalar::from(0xffff_u64),
            Scalar::from(0x1_0000_u64),
            Scalar::from(0x8000_8000_8000_8000_u64),
            top,
            top + top,
            -top,
        ];
        let mut value = Scalar::from(0x1234_5678_9abc_def1_u64);
        for _ in 0..700 {
            value = value.square() + Scalar::from(7_u64);
            all.push(value);
        }
        all
    }

    #[test]
    fn g1_multiples_equal_the_library_s() {
        let table = FixedBaseTable::<G1>::new();
        let scalars = scalars();
        for (scalar, point) in scalars.iter().zip(table.multiply(&scalars)) {
            let mut ours = Vec::new();
            G1::serialize(&point, &mut ours);
            let theirs = (G1Projective::generator() * scalar).to_affine();
            assert_eq!(ours, theirs.to_uncompressed(), "{scalar}");
            assert_eq!(point.is_identity(), bool::from(theirs.is_identity()));
        }
    }

    #[test]
    fn g2_multiples_equal_the_library_s() {
        let table = FixedBaseTable::<G2>::new();
        let scalars = scalars();
        for (scalar, point) in scalars.iter().zip(table.multiply(&scalars)) {
            let mut ours = Vec::new();
            G2::serialize(&point, &mut ours);
            assert_eq!(ours, (G2Projective::generator() * scalar).to_affine().to_uncompressed(), "{scalar}");
        }
    }

    #[test]
    fn equal_points_double_and_opposite_points_cancel() {
        let g = G1::generator_doubled(0);
        let mut sums = vec![g, g, Point::IDENTITY, g];
        add_each(&mut sums, &[g, g.negated(), g, Point::IDENTITY], &mut Scratch::default());
        let double = G1::generator_doubled(1);
        assert!(sums[0].x == double.x && sums[0].y == double.y);
        assert!(sums[1].is_identity());
        assert!(sums[2].x == g.x && sums[2].y == g.y);
        assert!(sums[3].x == g.x && sums[3].y == g.y);
    }
}
