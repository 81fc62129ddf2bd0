//! How a client with a key shows who it is: a signed statement for one authorization server, good for a minute or two
//! (RFC 7523).

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;

use super::random;
use crate::clock::Timestamp;
use crate::limits::MCP_ASSERTION_SECONDS;

/// A private key that signs.
pub struct Key(Kind);

enum Kind {
    Es256(EcdsaKeyPair),
    Rs256(rsa::KeyPair),
}

impl std::fmt::Debug for Key {
    /// Its kind alone.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Key").field(&self.algorithm()).finish()
    }
}

impl Key {
    /// Reads a key of PEM.
    ///
    /// # Errors
    /// What it must be.
    pub fn parse(pem: &str) -> Result<Self, &'static str> {
        let wrong = "must be a private key in PEM: P-256 in PKCS#8, or RSA of at least 2048 bits";
        let kind = match PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| wrong)? {
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                let elliptic = EcdsaKeyPair::from_pkcs8(
                    &ECDSA_P256_SHA256_FIXED_SIGNING,
                    der,
                    &SystemRandom::new(),
                );
                match elliptic {
                    Ok(pair) => Kind::Es256(pair),
                    Err(_) => Kind::Rs256(rsa::KeyPair::from_pkcs8(der).map_err(|_| wrong)?),
                }
            }
            PrivateKeyDer::Pkcs1(der) => {
                Kind::Rs256(rsa::KeyPair::from_der(der.secret_pkcs1_der()).map_err(|_| wrong)?)
            }
            _ => return Err("must be in PKCS#8: `openssl pkcs8 -topk8 -nodes` makes it so"),
        };
        Ok(Self(kind))
    }

    /// Its algorithm as servers name it.
    #[must_use]
    pub(super) fn algorithm(&self) -> &'static str {
        match self.0 {
            Kind::Es256(_) => "ES256",
            Kind::Rs256(_) => "RS256",
        }
    }

    /// What `client` says to `issuer` at that time.
    pub(super) fn statement(&self, client: &str, issuer: &str, now: Timestamp) -> String {
        let now = now.as_second();
        let head = json!({"alg": self.algorithm(), "typ": "JWT"});
        let claims = json!({
            "iss": client, "sub": client, "aud": issuer,
            "iat": now, "exp": now + MCP_ASSERTION_SECONDS, "jti": random(),
        });
        let encoded = [head, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
        let said = encoded.join(".");
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.sign(said.as_bytes()));
        format!("{said}.{signature}")
    }

    fn sign(&self, said: &[u8]) -> Vec<u8> {
        let (random, able) = (SystemRandom::new(), "the system has random numbers");
        match &self.0 {
            Kind::Es256(pair) => pair.sign(&random, said).expect(able).as_ref().to_vec(),
            Kind::Rs256(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, said, &mut signature).expect(able);
                signature
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use ring::signature::{
        ECDSA_P256_SHA256_FIXED, KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    };

    use super::*;

    fn openssl(words: &str) -> String {
        let made = Command::new("openssl").args(words.split(' ')).output().expect("openssl");
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).unwrap()
    }

    #[test]
    fn a_statement_says_who_to_whom_and_is_signed() {
        let curve = "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256";
        for (words, algorithm) in
            [(curve, "ES256"), ("genrsa 2048", "RS256"), ("genrsa -traditional 2048", "RS256")]
        {
            let key = Key::parse(&openssl(words)).unwrap();
            let statement = key.statement("me", "https://auth.example", Timestamp::UNIX_EPOCH);
            let (said, signature) = statement.rsplit_once('.').unwrap();
            let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
            let verified = match &key.0 {
                Kind::Es256(pair) => UnparsedPublicKey::new(
                    &ECDSA_P256_SHA256_FIXED,
                    pair.public_key().as_ref().to_vec(),
                )
                .verify(said.as_bytes(), &signature),
                Kind::Rs256(pair) => UnparsedPublicKey::new(
                    &RSA_PKCS1_2048_8192_SHA256,
                    pair.public_key().as_ref().to_vec(),
                )
                .verify(said.as_bytes(), &signature),
            };
            assert!(verified.is_ok(), "{words}");
            let parts: Vec<serde_json::Value> = said
                .split('.')
                .map(|part| {
                    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
                })
                .collect();
            assert_eq!(parts[0], json!({"alg": algorithm, "typ": "JWT"}));
            let claims = &parts[1];
            assert_eq!(
                json!([claims["iss"], claims["sub"], claims["aud"], claims["iat"], claims["exp"]]),
                json!(["me", "me", "https://auth.example", 0, MCP_ASSERTION_SECONDS])
            );
            assert!(claims["jti"].as_str().unwrap().len() >= 32);
            assert_eq!(format!("{key:?}"), format!("Key({algorithm:?})"));
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let check = |pem: &str, expected: &str| {
            let wrong = Key::parse(pem).unwrap_err();
            assert!(wrong.contains(expected), "{wrong}");
        };
        check("", "must be a private key");
        check(
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "must be a private key",
        );
        check(&openssl("ecparam -name prime256v1 -genkey -noout"), "PKCS#8");
        check(&openssl("genpkey -algorithm ed25519"), "must be a private key");
    }
}
