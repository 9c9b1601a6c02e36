//! Data in sectors.

use crate::sector::{SIZE, Sector, TREE_D, commit, text};
use damocles_core::{CommP, PaddedPieceSize, PieceInfo, zero_comm_d};
use damocles_seal::task::{PieceContent, PieceInput};
use std::fs;

fn zeros(padded: u64) -> PieceInfo {
    commit(padded, &[])
}

#[test]
fn a_sector_without_pieces_is_a_hole() {
    let sector = Sector::new(1);
    fs::write(sector.path("staged"), "left by a kill").unwrap();
    let added = sector.add_pieces(Vec::new()).unwrap();
    let whole = PieceInfo { comm_p: CommP(zero_comm_d(SIZE).0), size: PaddedPieceSize::try_from(2048).unwrap() };
    assert_eq!(added.pieces, [whole]);
    assert_eq!(added.comm_d, zero_comm_d(SIZE));
    assert_eq!(fs::read(sector.path("staged")).unwrap(), vec![0; 2048]);
    assert_eq!(sector.tree_d().unwrap().comm_d, added.comm_d);
}

#[test]
fn pieces_lie_at_multiples_of_their_size_and_zeros_fill_the_rest() {
    let sector = Sector::new(1);
    let small = sector.piece("small", 128, &[0xff; 127]);
    let large = sector.piece("large", 512, &[0xff; 300]);
    let added = sector.add_pieces(vec![small.clone(), large.clone()]).unwrap();
    let expected = [small.piece, zeros(128), zeros(256), large.piece, zeros(1024)];
    assert_eq!(added.pieces, expected);
    let staged = fs::read(sector.path("staged")).unwrap();
    assert_eq!(staged.len(), 2048);
    assert!(staged[..128].iter().all(|b| *b != 0) && staged[128..512].iter().all(|b| *b == 0));
    assert!(staged[512..800].iter().all(|b| *b != 0) && staged[1024..].iter().all(|b| *b == 0));
    // Two ways to the same root: from the pieces, and from the bytes.
    assert_eq!(sector.tree_d().unwrap().comm_d, added.comm_d);
    // Again, over what is there.
    assert_eq!(sector.add_pieces(vec![small, large]).unwrap(), added);
    assert_eq!(fs::read(sector.path("staged")).unwrap(), staged);
}

#[test]
fn a_piece_of_zeros_needs_no_file() {
    let sector = Sector::new(1);
    let zero = |piece| PieceInput { piece, content: PieceContent::Zeros };
    let added = sector.add_pieces(vec![zero(zeros(1024))]).unwrap();
    assert_eq!(added.comm_d, zero_comm_d(SIZE));
    let wrong = commit(1024, &[1]);
    let error = sector.add_pieces(vec![zero(wrong)]).unwrap_err();
    assert!(text(&error).contains(&wrong.comm_p.to_string()), "{error}");
}

#[test]
fn a_piece_that_is_another_is_refused_by_name() {
    let sector = Sector::new(1);
    let mut piece = sector.piece("piece", 2048, &[3; 2032]);
    fs::write(sector.path("piece"), [4; 2032]).unwrap();
    let error = text(&sector.add_pieces(vec![piece.clone()]).unwrap_err());
    assert!(error.contains(&format!("the content of piece {} is another piece", piece.piece.comm_p)), "{error}");

    fs::write(sector.path("piece"), [3; 2033]).unwrap();
    let error = text(&sector.add_pieces(vec![piece.clone()]).unwrap_err());
    assert!(error.contains("piece has 2033 bytes, more than the 2032"), "{error}");

    fs::remove_file(sector.path("piece")).unwrap();
    let error = text(&sector.add_pieces(vec![piece.clone()]).unwrap_err());
    assert!(error.contains(sector.path("piece").to_str().unwrap()), "{error}");

    piece.content = PieceContent::Zeros;
    piece.piece = zeros(4096);
    let error = text(&sector.add_pieces(vec![piece]).unwrap_err());
    assert!(error.contains("does not fit at 0 of 2048"), "{error}");
}

#[test]
fn a_tree_that_lies_there_is_never_trusted() {
    let sector = Sector::new(1);
    sector.add_pieces(vec![sector.piece("piece", 2048, &[5; 2032])]).unwrap();
    let good = sector.tree_d().unwrap();
    let bytes = fs::read(&good.file).unwrap();
    assert_eq!(good.file, sector.path("prepared").join(TREE_D));
    // As a kill leaves it: of full length, and filled only in part.
    let mut half = bytes.clone();
    half[1000..].fill(0);
    fs::write(&good.file, half).unwrap();
    fs::create_dir(sector.path("prepared").join(".tree-d.damocles-tmp")).unwrap();
    fs::write(sector.path("prepared").join(".tree-d.damocles-tmp").join(TREE_D), vec![1; bytes.len()]).unwrap();
    assert_eq!(sector.tree_d().unwrap(), good);
    assert_eq!(fs::read(&good.file).unwrap(), bytes);

    fs::write(sector.path("staged"), [0; 2047]).unwrap();
    let error = text(&sector.tree_d().unwrap_err());
    assert!(error.contains("staged has 2047 bytes, not 2048"), "{error}");
}
