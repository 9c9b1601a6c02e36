//! Answers that are known from elsewhere.

use crate::setup::{Desk, send};
use damocles_chain::signer::{KeyKind, PrivateKey, Purpose, SignRequest, Signer as _, verify};
use damocles_core::Address;
use fvm_shared::crypto::signature::{Signature, SignatureType};

/// A key as Lotus exports it, its address, a text and Lotus' signature over it: type byte and bytes, as `wallet sign`
/// prints it. Published test keys; nothing is behind them.
struct Vector {
    export: &'static str,
    address: &'static str,
    signed: Option<(&'static [u8], &'static str)>,
}

const VECTORS: [Vector; 4] = [
    // `lotus wallet export` and `lotus wallet sign` of these two keys are in the tests of Textile's remote signer.
    Vector {
        export: "7b2254797065223a22736563703235366b31222c22507269766174654b6579223a226b35507976337148327349586343595a58594f5775453149326e32554539436861556b6c4e36695a5763453d227d",
        address: "f1fib3pv7jua2ockdugtz7viz3cyy6lkhh7rfx3sa",
        signed: Some((
            b"DUKE",
            "0103bff286f1371c1a4ce8e33c29d6a20eeb53f17970190d12c5a1c0fc4be9a56e766250d5a82dda2179fa90ae297696d1dfaa9eea8f2f833da0cf87b927294eb700",
        )),
    },
    Vector {
        export: "7b2254797065223a22626c73222c22507269766174654b6579223a226862702f794666527439514c43716b6d566171415752436f50556777314b776971716e73684e49704e57513d227d",
        address: "f3rpskqryflc2sqzzzu7j2q6fecrkdkv4p2avpf4kyk5u754he7g6cr2rbpmif7pam5oxbme2oyzot4ry3d74q",
        signed: Some((
            b"DUKE",
            "0280cef41af956cf6855725a5af0d8d956ea41f6da2688cc1f436a7ea5ebd15d96ba384746b819c0836c53a54d6d30b0a70b528204e9da92f833031e7a4776f57bad83e033ea0235bad0f8a5337a4eb66870fc0429175ed63f91203ec1b65c6e31",
        )),
    },
    // A Lotus key in the tests of a JavaScript implementation of BLS over Filecoin's addresses.
    Vector {
        export: "7b2254797065223a22626c73222c22507269766174654b6579223a226b6874647470674f417247444a6c7152316b33583052302f58784f6564504f6c744f6c6c347876774f7a4d3d227d",
        address: "f3vtucyrbfhfgtxl7nbzzfyt75h5chsegcahdu3krpelif62mbm67nzun3hp5mxvxfirtqwbjokwhnqgh5cj3q",
        signed: Some((
            b"hello",
            "0294c135ac9b50ef9c42dcf5ce1f5dd1da517adacf79fd1cd7c09a6d90803cc706a64347e5510260cba90cf235277086341176bb4e44849dfa81abdbf9f6e38a21b074713ebcdd5906fc3894adac1e60a91c7127a711204a98e5d1ce5da6379efd",
        )),
    },
    // A Lotus export with its address, in the tests of an exchange's wallet.
    Vector {
        export: "7b2254797065223a22736563703235366b31222c22507269766174654b6579223a22674f447046677043326b424b5a565a4d70682b6d4d6b36514a3473793732437a7041656452386a654f61633d227d",
        address: "t1gsu7dkdufuygtbcclhmjcao7vg7cap46l6ij2ri",
        signed: None,
    },
];

#[tokio::test]
async fn keys_addresses_and_signatures_are_lotus() {
    let desk = Desk::new();
    let wallet = desk.create();
    for vector in VECTORS {
        let address: Address = vector.address.parse().unwrap();
        let imported = wallet.import(vector.export).unwrap();
        assert_eq!(imported.as_str()[1..], vector.address[1..]);
        assert_eq!(wallet.export(&address).unwrap().as_str(), vector.export, "{}", vector.address);
        let Some((text, lotus)) = vector.signed else { continue };
        let request = SignRequest::bytes(Purpose::UNKNOWN, text);
        let signature = wallet.sign(&address, &request).await.unwrap();
        let first = if signature.sig_type == SignatureType::Secp256k1 { "01" } else { "02" };
        assert_eq!(format!("{first}{}", hex::encode(&signature.bytes)), lotus, "{}", vector.address);
    }
    assert_eq!(wallet.keys().unwrap().len(), VECTORS.len());
}

#[test]
fn lotus_signatures_are_verified() {
    for vector in VECTORS {
        let Some((text, lotus)) = vector.signed else { continue };
        let bytes = hex::decode(lotus).unwrap();
        let signature = match bytes[0] {
            1 => Signature::new_secp256k1(bytes[1..].to_vec()),
            _ => Signature::new_bls(bytes[1..].to_vec()),
        };
        let address = damocles_chain::lotus_json::parse_address(vector.address).unwrap();
        assert!(verify(&address, &signature, text));
        assert!(!verify(&address, &signature, b"DUKF"));
    }
}

#[test]
fn the_json_inside_an_export_is_a_key_too() {
    for vector in VECTORS {
        let json = hex::decode(vector.export).unwrap();
        let text = String::from_utf8(json).unwrap();
        let key = PrivateKey::from_lotus_text(&format!("  {text}\n")).unwrap();
        assert_eq!(hex::encode(key.to_lotus().as_slice()), vector.export);
    }
    // The types of old versions are numbers.
    let old = r#"{"Type":1,"PrivateKey":"k5Pyv3qH2sIXcCYZXYOWuE1I2n2UE9ChaUklN6iZWcE="}"#;
    assert_eq!(PrivateKey::from_lotus_text(old).unwrap().kind(), KeyKind::Secp256k1);
    for bad in ["", "7b", "zz", "{}", "[]", "7b22547970", r#"{"Type":"bls"}"#] {
        assert!(PrivateKey::from_lotus_text(bad).is_err(), "{bad}");
    }
}

/// The CBOR of a message and what is signed of it, put together here by hand and signed by the curve's library.
#[tokio::test]
async fn a_message_is_signed_over_its_cid() {
    let desk = Desk::new();
    let wallet = desk.create();
    let address = wallet.import(VECTORS[0].export).unwrap();
    let message = send(&address, 1000, 7, 0);

    // [version, to (f01000), from (21 bytes), nonce, value (empty: zero), limit, fee cap, premium, method, params]
    let mut cbor = hex::decode("8a004300e80755").unwrap();
    cbor.extend(damocles_chain::lotus_json::from_core(&address).unwrap().to_bytes());
    cbor.extend(hex::decode("07400040400040").unwrap());
    let digest = |bytes: &[u8]| blake2b_simd::Params::new().hash_length(32).hash(bytes);
    let mut cid = hex::decode("0171a0e40220").unwrap();
    cid.extend_from_slice(digest(&cbor).as_bytes());

    let request = SignRequest::message(message);
    assert_eq!(request.to_sign(), cid);
    let raw = hex::decode("9393f2bf7a87dac2177026195d8396b84d48da7d9413d0a169492537a89959c1").unwrap();
    let key = k256::ecdsa::SigningKey::from_slice(&raw).unwrap();
    let (expected, id) = key.sign_prehash_recoverable(digest(&cid).as_bytes()).unwrap();
    let mut bytes = expected.to_bytes().to_vec();
    bytes.push(id.to_byte());
    assert_eq!(wallet.sign(&address, &request).await.unwrap().bytes, bytes);
}
