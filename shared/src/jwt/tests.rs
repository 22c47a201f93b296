use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::*;

const SECRET: &str = "a secret of thirty-two bytes, at least";
const NOW: i64 = 1_000;
/// Signed by openssl with the private half of [`RSA_MODULUS`], which nobody has kept.
const RSA_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYS0xIn0.eyJleHAiOjIwMDAsInN1YiI6ImFkYSIsInByb2plY3QiOiJwcmpfMDEwMTAxMDEwMTAxMDEwMTAxMDEwMTAxMDEwMTAxMDEifQ.sDRt3OfEXl0CJlK0FQT8akwnzth8ORO8Lg9ofu9e8i8mCWRImqcLkIzF-27XVbn23lNWy0ekA-ZHvXRkQeQZIKtOWzQu1HcxSArAmuHygLRXDVcA2lp9GbOe7rJU_SHCPiRjvQ5yACwdrzEmE64diZfmaOLBKZcplu1TVg2jZBeV3udiCXqclyhudVlND3_906u8PJaIPpGgxDPbDrb3J2Fn3dy2jOE9CyUVS-OIEs__4CoywshZldbM6OQgjwLMHDTFA-_V3f34BDU9JSdE6W8PS-0KnprJVMaUax-4JAiYQPAWYJFY_Xkixp47gc-I8G8Pr3ZbxPpFSZfHZE1QQg";
const RSA_MODULUS: &str = "3Dve2kPFAQdCm6aj9FBHb4KZTeALVRQiQ4qKBL5bBC6k4YN26EIA94nPgpV3K_O5i_OCEKLScT9mwI1FVHV_AQwcLpsGKHzDZIJzU185avKul9fAAoYEcpV7R5iFn2vuhqFozphxIYh_SlMuWExhGzWYvuL8a6LwhkLKdXWuCPoEPmly51GZriekSnpL0ti3h3g_LKfufLlcbTcIjyG94aAN5n2ZK6VATTltIfHy7BCcaVXp0zaPd5K05HDJyD8C58bzQnBWhYR_YqVO0s3JNkO4sfJ2MQ4k09vxSRjGDU3eXJ_UG9oMSYShxV_8buXA1vkD0iggFN_jc_FCW9n5rw";

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn token(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!(
        "{}.{}",
        base64(header.to_string()),
        base64(claims.to_string())
    );
    let signature = sign(message.as_bytes());
    format!("{message}.{}", base64(signature))
}

fn hmac(secret: &str) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    move |message| ring::hmac::sign(&key, message).as_ref().to_vec()
}

fn hs256(claims: &Value) -> String {
    token(
        &json!({ "alg": "HS256", "typ": "JWT" }),
        claims,
        hmac(SECRET),
    )
}

fn rules() -> JwtRules {
    JwtRules {
        hs256_secret: Some(Secret::new(SECRET)),
        ..JwtRules::default()
    }
}

fn project() -> ProjectId {
    ProjectId::from_bytes([1; 16])
}

fn claims() -> Value {
    json!({ "exp": 2_000, "sub": "ada", "project": project() })
}

fn with(changes: Value) -> Value {
    let mut claims = claims();
    let object = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            object.remove(name);
        } else {
            object.insert(name.clone(), value.clone());
        }
    }
    claims
}

fn check(token: &str, rules: &JwtRules, keys: &KeySet) -> Result<Holder, JwtError> {
    verify(token, rules, keys, Timestamp::from_millis(NOW * 1_000))
}

#[test]
fn a_token_names_its_project_in_either_dialects_words() {
    for changes in [
        json!({}),
        json!({ "project": null, "companyId": project().uuid().to_string() }),
        json!({ "project": null, "companyId": project() }),
        json!({ "project": project().uuid().to_string() }),
    ] {
        let holder = check(&hs256(&with(changes)), &rules(), &KeySet::none()).unwrap();
        let expected = Holder {
            project: project(),
            subject: "ada".to_owned(),
            valid_until: Timestamp::from_millis(2_010_000),
        };
        assert_eq!(holder, expected);
    }
}

#[test]
fn claims_are_checked() {
    let audience = JwtRules {
        audience: Some("carillon".to_owned()),
        ..rules()
    };
    let issuer = JwtRules {
        issuer: Some("idp".to_owned()),
        ..rules()
    };
    let ok = None;
    for (rules, changes, expected) in [
        (rules(), json!({ "exp": 989.5 }), Some(JwtError::Expired)),
        (rules(), json!({ "exp": 990 }), Some(JwtError::Expired)),
        (rules(), json!({ "exp": 990.5 }), ok),
        (rules(), json!({ "exp": null }), Some(JwtError::Malformed)),
        (rules(), json!({ "exp": "2000" }), Some(JwtError::Malformed)),
        (rules(), json!({ "exp": 4e12 }), ok),
        (rules(), json!({ "nbf": 1_010 }), ok),
        (rules(), json!({ "nbf": 1_011 }), Some(JwtError::TooEarly)),
        (rules(), json!({ "nbf": "1" }), Some(JwtError::Malformed)),
        (
            rules(),
            json!({ "project": null }),
            Some(JwtError::NoProject),
        ),
        (rules(), json!({ "project": 1 }), Some(JwtError::Malformed)),
        (
            rules(),
            json!({ "project": "prj_1" }),
            Some(JwtError::NoProject),
        ),
        (
            rules(),
            json!({ "aud": "carillon" }),
            Some(JwtError::Audience),
        ),
        (audience.clone(), json!({}), Some(JwtError::Audience)),
        (
            audience.clone(),
            json!({ "aud": "x" }),
            Some(JwtError::Audience),
        ),
        (audience.clone(), json!({ "aud": "carillon" }), ok),
        (audience, json!({ "aud": ["x", "carillon"] }), ok),
        (rules(), json!({ "iss": "anybody" }), ok),
        (issuer.clone(), json!({}), Some(JwtError::Issuer)),
        (
            issuer.clone(),
            json!({ "iss": "x" }),
            Some(JwtError::Issuer),
        ),
        (issuer, json!({ "iss": "idp" }), ok),
    ] {
        let refused = check(&hs256(&with(changes.clone())), &rules, &KeySet::none()).err();
        assert_eq!(refused, expected, "{changes}");
    }
}

#[test]
fn only_the_right_key_signs() {
    let none = KeySet::none();
    let other = token(
        &json!({ "alg": "HS256" }),
        &claims(),
        hmac("another secret"),
    );
    assert_eq!(check(&other, &rules(), &none), Err(JwtError::Signature));
    let good = hs256(&claims());
    let (message, _) = good.rsplit_once('.').unwrap();
    assert_eq!(
        check(&format!("{message}."), &rules(), &none),
        Err(JwtError::Signature)
    );
    let unconfigured = JwtRules::default();
    assert_eq!(check(&good, &unconfigured, &none), Err(JwtError::Algorithm));
    for header in [
        json!({ "alg": "none" }),
        json!({ "alg": "HS512" }),
        json!({ "alg": "EdDSA" }),
        json!({}),
    ] {
        let refused = check(&token(&header, &claims(), hmac(SECRET)), &rules(), &none);
        assert!(
            matches!(refused, Err(JwtError::Algorithm | JwtError::Malformed)),
            "{header} {refused:?}"
        );
    }
    for text in ["", "..", "a.b.c", "a.b", &"x".repeat(10_000)] {
        assert_eq!(check(text, &rules(), &none), Err(JwtError::Malformed));
    }
}

#[test]
fn a_public_key_is_no_secret() {
    // The classic confusion: HS256, signed with what everybody may read.
    let keys = rsa_keys();
    let forged = token(
        &json!({ "alg": "HS256", "kid": "rsa-1" }),
        &claims(),
        hmac(RSA_MODULUS),
    );
    assert_eq!(
        check(&forged, &JwtRules::default(), &keys),
        Err(JwtError::Algorithm)
    );
    assert_eq!(check(&forged, &rules(), &keys), Err(JwtError::Signature));
}

fn rsa_keys() -> KeySet {
    let keys = json!({ "keys": [
        { "kty": "oct", "kid": "rsa-1", "k": "AAAA" },
        { "kty": "RSA", "kid": "rsa-1", "use": "enc", "n": "AAAA", "e": "AQAB" },
        { "kty": "RSA", "kid": "rsa-1", "use": "sig", "alg": "RS256", "n": RSA_MODULUS, "e": "AQAB" },
    ]});
    KeySet::parse(keys.to_string().as_bytes()).unwrap()
}

#[test]
fn rs256_is_checked_against_the_key_of_its_id() {
    let holder = check(RSA_TOKEN, &JwtRules::default(), &rsa_keys()).unwrap();
    assert_eq!(holder.project, project());
    let unknown = check(RSA_TOKEN, &JwtRules::default(), &KeySet::none());
    assert_eq!(unknown, Err(JwtError::UnknownKey));
    let (message, _) = RSA_TOKEN.rsplit_once('.').unwrap();
    let forged = format!("{message}.{}", base64([0; 256]));
    let refused = check(&forged, &JwtRules::default(), &rsa_keys());
    assert_eq!(refused, Err(JwtError::Signature));
}

#[test]
fn es256_is_checked_against_the_only_key_there_is() {
    let random = SystemRandom::new();
    let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair.as_ref(), &random).unwrap();
    let point = pair.public_key().as_ref();
    let key = |kid: &str| {
        json!({
            "kty": "EC", "crv": "P-256", "kid": kid,
            "x": base64(&point[1..33]), "y": base64(&point[33..]),
        })
    };
    let set =
        |keys: Vec<Value>| KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
    let sign = |message: &[u8]| pair.sign(&random, message).unwrap().as_ref().to_vec();
    let unnamed = token(&json!({ "alg": "ES256" }), &claims(), sign);
    let rules = JwtRules::default();
    check(&unnamed, &rules, &set(vec![key("a")])).unwrap();
    let two = set(vec![key("a"), key("b")]);
    assert_eq!(check(&unnamed, &rules, &two), Err(JwtError::UnknownKey));
    let named = token(&json!({ "alg": "ES256", "kid": "b" }), &claims(), sign);
    check(&named, &rules, &two).unwrap();
    let later = token(&json!({ "alg": "ES256", "kid": "c" }), &claims(), sign);
    assert_eq!(check(&later, &rules, &two), Err(JwtError::UnknownKey));
}

#[test]
fn a_subject_is_shown_as_one_bounded_line() {
    let long = with(json!({ "sub": format!("a\nb{}", "x".repeat(500)) }));
    let holder = check(&hs256(&long), &rules(), &KeySet::none()).unwrap();
    assert_eq!(holder.subject.len(), 128);
    assert!(holder.subject.starts_with("abx"));
}
