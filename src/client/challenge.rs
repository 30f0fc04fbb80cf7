//! The long-term credential mechanism as the client sees it (RFC 8489 section
//! 9.2): from a 401 or 438 to the attributes and the key of the next requests.

use stun_rs::attributes::StunAttribute;
use stun_rs::attributes::stun::nonce_cookie::StunSecurityFeatures;
use stun_rs::attributes::stun::{
    Nonce, PasswordAlgorithm, PasswordAlgorithms, Realm, UserHash, UserName,
};
use stun_rs::{Algorithm, AlgorithmId, HMACKey, StunMessage};

use super::event::Problem;
use super::request::Attribute;
use super::{Config, Security};

/// Which integrity attribute a message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Integrity {
    /// MESSAGE-INTEGRITY.
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256.
    Sha256,
}

/// What a request is signed with, and so its response.
#[derive(Clone)]
pub(super) struct Signature {
    pub(super) key: HMACKey,
    pub(super) integrity: Integrity,
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signature").field("integrity", &self.integrity).finish_non_exhaustive()
    }
}

/// What the server has asked for, and our answer to it.
#[derive(Debug)]
pub(super) struct Challenge {
    realm: Realm,
    nonce: Nonce,
    identity: Identity,
    offer: Option<Offer>,
    signature: Signature,
}

#[derive(Debug)]
enum Identity {
    Name(UserName),
    Hash(UserHash),
}

/// PASSWORD-ALGORITHMS of the server and what we chose from it.
#[derive(Clone, Debug)]
struct Offer {
    algorithms: PasswordAlgorithms,
    chosen: PasswordAlgorithm,
}

impl Challenge {
    /// The answer to a 401 or 438. What a 438 leaves out is taken from `previous`.
    pub(super) fn answer(
        config: &Config,
        response: &StunMessage,
        previous: Option<&Self>,
    ) -> Result<Self, Problem> {
        check_bid_down(config, response)?;
        let nonce = nonce_of(response).ok_or(Problem::Missing("NONCE"))?;
        let realm = response
            .get::<Realm>()
            .and_then(|attribute| attribute.as_realm().ok())
            .or(previous.map(|previous| &previous.realm))
            .ok_or(Problem::Missing("REALM"))?;
        let offer = match offer_of(config, response)? {
            Some(offer) => Some(offer),
            None => previous.and_then(|previous| previous.offer.clone()),
        };
        let name = UserName::new(&config.username).map_err(unencodable)?;
        let signature = sign_with(&name, realm, &config.password, offer.as_ref())?;
        let anonymous = config.security == Security::Full
            && announces(nonce, StunSecurityFeatures::UserNameAnonymity);
        let identity = if anonymous {
            Identity::Hash(UserHash::new(&name, realm).map_err(unencodable)?)
        } else {
            Identity::Name(name)
        };
        Ok(Self { realm: realm.clone(), nonce: nonce.clone(), identity, offer, signature })
    }

    pub(super) fn realm(&self) -> &str {
        self.realm.as_str()
    }

    pub(super) fn nonce(&self) -> &str {
        self.nonce.as_str()
    }

    pub(super) fn replace_nonce(&mut self, nonce: &str) -> bool {
        Nonce::new(nonce).map(|nonce| self.nonce = nonce).is_ok()
    }

    pub(super) fn signature(&self) -> Signature {
        self.signature.clone()
    }

    /// The attributes of an authenticated request, integrity excepted.
    pub(super) fn attributes(&self) -> Vec<Attribute> {
        let identity: StunAttribute = match &self.identity {
            Identity::Name(name) => name.clone().into(),
            Identity::Hash(hash) => hash.clone().into(),
        };
        let mut list: Vec<Attribute> =
            vec![Attribute::Typed(Box::new(identity)), self.realm.clone().into()];
        list.push(self.nonce.clone().into());
        if let Some(Offer { algorithms, chosen }) = &self.offer {
            list.push(algorithms.clone().into());
            list.push(chosen.clone().into());
        }
        list
    }
}

/// Whether somebody on the way has removed PASSWORD-ALGORITHMS from a response
/// whose nonce says that it was there. A legacy client does not know to look.
pub(super) fn check_bid_down(config: &Config, response: &StunMessage) -> Result<(), Problem> {
    let announced = config.security == Security::Full
        && nonce_of(response)
            .is_some_and(|nonce| announces(nonce, StunSecurityFeatures::PasswordAlgorithms));
    if announced && response.get::<PasswordAlgorithms>().is_none() {
        return Err(Problem::BidDown);
    }
    Ok(())
}

fn nonce_of(response: &StunMessage) -> Option<&Nonce> {
    response.get::<Nonce>().and_then(|attribute| attribute.as_nonce().ok())
}

fn announces(nonce: &Nonce, feature: StunSecurityFeatures) -> bool {
    // The check first: `security_features` cuts by bytes, which must be ASCII.
    nonce.as_str().is_ascii()
        && nonce.security_features().is_ok_and(|features| features.contains(feature))
}

/// The first algorithm on the server's list that we know.
fn offer_of(config: &Config, response: &StunMessage) -> Result<Option<Offer>, Problem> {
    if config.security == Security::Legacy {
        return Ok(None);
    }
    let Some(algorithms) = response
        .get::<PasswordAlgorithms>()
        .and_then(|attribute| attribute.as_password_algorithms().ok())
    else {
        return Ok(None);
    };
    let chosen = algorithms
        .iter()
        .find(|offered| matches!(offered.algorithm(), AlgorithmId::MD5 | AlgorithmId::SHA256))
        .ok_or(Problem::NoCommonAlgorithm)?;
    Ok(Some(Offer { algorithms: algorithms.clone(), chosen: chosen.clone() }))
}

/// A server that lists password algorithms knows MESSAGE-INTEGRITY-SHA256, and
/// nothing weaker is used with it (RFC 8489 section 9.2.5).
fn sign_with(
    name: &UserName,
    realm: &Realm,
    password: &str,
    offer: Option<&Offer>,
) -> Result<Signature, Problem> {
    let (algorithm, integrity) = match offer {
        Some(offer) => (offer.chosen.as_ref().clone(), Integrity::Sha256),
        None => (Algorithm::from(AlgorithmId::MD5), Integrity::Sha1),
    };
    let key = HMACKey::new_long_term(name, realm, password, algorithm).map_err(unencodable)?;
    Ok(Signature { key, integrity })
}

fn unencodable(error: impl std::fmt::Display) -> Problem {
    Problem::Unencodable(error.to_string())
}
