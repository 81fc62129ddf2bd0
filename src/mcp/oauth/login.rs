//! One login: who the client is to an authorization server, how it shows that, and the two ways to a token. There is no
//! browser: a code is had where the server gives one without asking a person, and where it does not, that is said.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use reqwest::Url;
use reqwest::header::HeaderValue;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::json;

use super::discover::{AuthorizationServer, Found};
use super::jwt::Key;
use super::reach::{Answer, Reach, place};
use super::{Identity, NoToken, OAuth, Proof, Secret, random};
use crate::clock::Clock;
use crate::limits::MCP_REDIRECTS;
use crate::mcp::failure::Seal;

/// Where codes are sent to. Nobody listens there: the redirect itself is read.
pub(super) const REDIRECT: &str = "http://127.0.0.1/callback";

const FORM: &str = "application/x-www-form-urlencoded";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Who this program is to an authorization server.
#[derive(Clone)]
pub(super) struct Client {
    id: String,
    shows: Shows,
}

/// What goes with a request for a token.
#[derive(Clone)]
enum Shows {
    Nothing,
    Basic(Secret),
    Post(Secret),
    Statement(Arc<Key>),
}

impl Client {
    /// What it shows, where that is a secret.
    pub(super) fn secret(&self) -> Option<&str> {
        match &self.shows {
            Shows::Basic(Secret(secret)) | Shows::Post(Secret(secret)) => Some(secret),
            Shows::Nothing | Shows::Statement(_) => None,
        }
    }
}

/// What a login is made with.
pub(super) struct Desk<'l> {
    pub(super) own: &'l OAuth,
    pub(super) reach: &'l Reach,
    pub(super) clock: &'l dyn Clock,
    pub(super) found: &'l Found,
}

type Pairs = Vec<(&'static str, String)>;

impl Desk<'_> {
    fn at(&self) -> &AuthorizationServer {
        &self.found.at
    }

    /// An error that says of which authorization server it is.
    fn no(&self, why: &str) -> NoToken {
        NoToken::new(format!("its authorization server `{}`: {why}", self.at().issuer))
    }

    /// Who this program is: as the configuration has it, or as it is registered, which `known` keeps.
    pub(super) async fn client(&self, known: &mut Option<Client>) -> Result<Client, NoToken> {
        if let Some(client) = known {
            return Ok(client.clone());
        }
        let is_unknown = |own: &Identity| {
            own.is_document() && !self.at().says.client_id_metadata_document_supported
        };
        match (&self.own.client, &self.at().register) {
            (None, None) => Err(self.no("it registers nobody; set `client_id` of `oauth`")),
            (Some(own), Some(register)) if is_unknown(own) => {
                Ok(known.insert(self.register(register).await?).clone())
            }
            (None, Some(register)) => Ok(known.insert(self.register(register).await?).clone()),
            (Some(own), _) => Ok(Client { id: own.id.clone(), shows: self.shows(&own.proof)? }),
        }
    }

    /// How the configuration's own proof is shown: as the server takes it.
    fn shows(&self, proof: &Proof) -> Result<Shows, NoToken> {
        match proof {
            Proof::None => Ok(Shows::Nothing),
            Proof::Secret(secret) => {
                self.may_be_told()?;
                match () {
                    () if self.takes("client_secret_basic") => Ok(Shows::Basic(secret.clone())),
                    () if self.takes("client_secret_post") => Ok(Shows::Post(secret.clone())),
                    () => Err(self.no("it takes no secret of a client")),
                }
            }
            Proof::Key(key) => {
                let algorithms = &self.at().says.token_endpoint_auth_signing_alg_values_supported;
                let own = key.algorithm();
                if algorithms.as_ref().is_some_and(|known| !known.iter().any(|known| known == own))
                {
                    return Err(self.no(&format!("it takes no key of {own}")));
                }
                Ok(Shows::Statement(Arc::clone(key)))
            }
        }
    }

    /// A secret is for one authorization server. Where the configuration does not name it, the MCP server might name one
    /// that is not meant.
    fn may_be_told(&self) -> Result<(), NoToken> {
        let is_own = self.at().token.host() == self.reach.server.host();
        if self.own.issuer.is_some() || is_own {
            return Ok(());
        }
        Err(self.no("a secret goes to no other host than the server's; set `issuer` of `oauth` if it is meant"))
    }

    /// Whether the server takes that way for a client to show who it is. One that says nothing takes the usual one.
    fn takes(&self, method: &str) -> bool {
        match &self.at().says.token_endpoint_auth_methods_supported {
            Some(methods) => methods.iter().any(|own| own == method),
            None => method == "client_secret_basic",
        }
    }

    /// Introduces this program (RFC 7591).
    async fn register(&self, at: &Url) -> Result<Client, NoToken> {
        #[derive(Deserialize)]
        struct Registered {
            client_id: String,
            client_secret: Option<Secret>,
            token_endpoint_auth_method: Option<String>,
        }
        let known = ["none", "client_secret_basic", "client_secret_post"];
        let method = known.into_iter().find(|method| self.takes(method));
        let method = method.ok_or_else(|| self.no("it takes no way to show who a client is"))?;
        let body = json!({
            "client_name": "casemate",
            "redirect_uris": [REDIRECT],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": method,
            "application_type": "native",
        });
        let answer = self.reach.post(at, "application/json", body.to_string(), None).await?;
        let registered = self.taken(&answer, "a registration", &Seal::default())?;
        let Ok(registered) = serde_json::from_slice::<Registered>(registered) else {
            return Err(self.no("its answer to a registration is none"));
        };
        let method = registered.token_endpoint_auth_method.as_deref().unwrap_or(method);
        let shows = match (method, registered.client_secret) {
            ("client_secret_basic", Some(secret)) => Shows::Basic(secret),
            ("client_secret_post", Some(secret)) => Shows::Post(secret),
            ("none", _) | (_, None) => Shows::Nothing,
            _ => {
                return Err(
                    self.no("it registers clients that show who they are in an unknown way")
                );
            }
        };
        Ok(Client { id: registered.client_id, shows })
    }

    /// Gets a token: on the client's own word where it has a secret or a key, else by a code. The answer's body is returned.
    pub(super) async fn log_in(
        &self,
        client: &Client,
        scope: Option<&str>,
    ) -> Result<Vec<u8>, NoToken> {
        let grants = &self.at().says.grant_types_supported;
        let knows =
            grants.as_ref().is_none_or(|own| own.iter().any(|own| own == "client_credentials"));
        let can_prove =
            !matches!(self.own.client.as_ref().map(|own| &own.proof), None | Some(Proof::None));
        if can_prove && knows {
            let mut form = vec![("grant_type", "client_credentials".to_owned())];
            form.extend(scope.map(|scope| ("scope", scope.to_owned())));
            return self.token(client, form).await;
        }
        let verifier = random();
        let code = self.code(client, scope, &verifier).await?;
        let form = vec![
            ("grant_type", "authorization_code".to_owned()),
            ("code", code),
            ("redirect_uri", REDIRECT.to_owned()),
            ("code_verifier", verifier),
        ];
        self.token(client, form).await
    }

    pub(super) async fn refresh(&self, client: &Client, token: &str) -> Result<Vec<u8>, NoToken> {
        let form =
            vec![("grant_type", "refresh_token".to_owned()), ("refresh_token", token.to_owned())];
        self.token(client, form).await
    }

    /// Asks the token endpoint.
    async fn token(&self, client: &Client, mut form: Pairs) -> Result<Vec<u8>, NoToken> {
        form.push(("resource", self.found.resource.clone()));
        let mut proof = None;
        match &client.shows {
            Shows::Nothing => form.push(("client_id", client.id.clone())),
            Shows::Basic(Secret(secret)) => proof = Some(basic(&client.id, secret)),
            Shows::Post(Secret(secret)) => {
                form.extend([("client_id", client.id.clone()), ("client_secret", secret.clone())]);
            }
            Shows::Statement(key) => {
                let said = key.statement(&client.id, &self.at().issuer, self.clock.now());
                form.extend([
                    ("client_id", client.id.clone()),
                    ("client_assertion_type", ASSERTION.to_owned()),
                    ("client_assertion", said),
                ]);
            }
        }
        let seal = seal(&form, client);
        let answer = self.reach.post(&self.at().token, FORM, encoded(&form), proof).await?;
        self.taken(&answer, "the request for a token", &seal).map(<[u8]>::to_vec)
    }

    /// The body of an answer that says yes; the words of one that does not, without what it was told.
    fn taken<'a>(&self, answer: &'a Answer, what: &str, seal: &Seal) -> Result<&'a [u8], NoToken> {
        #[derive(Deserialize)]
        struct Refusal {
            error: String,
            error_description: Option<String>,
        }
        if answer.status.is_success() {
            return Ok(&answer.body);
        }
        let status = answer.status.as_u16();
        let Ok(refusal) = serde_json::from_slice::<Refusal>(&answer.body) else {
            return Err(self.no(&format!("it answered {what} with HTTP {status}")));
        };
        let why = refusal.error_description.map(|why| format!(": {}", seal.quote(&why)));
        let error = seal.quote(&refusal.error);
        let words = format!("it refused {what} ({error}{})", why.unwrap_or_default());
        Err(self.no(&words).coded(refusal.error))
    }

    /// Walks to the code: the authorization endpoint sends whoever may have one straight on.
    async fn code(
        &self,
        client: &Client,
        scope: Option<&str>,
        verifier: &str,
    ) -> Result<String, NoToken> {
        let methods = self.at().says.code_challenge_methods_supported.iter().flatten();
        if !methods.into_iter().any(|method| method == "S256") {
            return Err(self.no("it does not say that it knows PKCE with S256"));
        }
        let state = random();
        let mut url = self.at().authorize.clone().ok_or_else(|| self.no("it gives no codes"))?;
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &client.id)
            .append_pair("redirect_uri", REDIRECT)
            .append_pair("state", &state)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .append_pair("resource", &self.found.resource)
            .extend_pairs(scope.map(|scope| ("scope", scope)));
        for _ in 0..=MCP_REDIRECTS {
            let answer = self.reach.get(&url).await?;
            match answer.location {
                Some(back) if is_callback(&back) => return self.code_of(&back, &state),
                Some(next) if next.origin() == url.origin() => url = next,
                Some(elsewhere) => return Err(self.wants_a_person(&elsewhere)),
                None if answer.status.is_success() => return Err(self.wants_a_person(&url)),
                None => {
                    let status = answer.status.as_u16();
                    return Err(
                        self.no(&format!("it answered the request for a code with HTTP {status}"))
                    );
                }
            }
        }
        Err(self.no("it redirects without end"))
    }

    fn wants_a_person(&self, at: &Url) -> NoToken {
        self.no(&format!(
            "a person has to log in at `{}`, and nobody is there; give the server a `client_id` with \
             `client_secret_env` or `private_key_env`, or a token of yours in `bearer_env`",
            place(at)
        ))
    }

    /// The code of a redirect, if it is the answer to what was asked, and the authorization server's.
    fn code_of(&self, back: &Url, state: &str) -> Result<String, NoToken> {
        let get = |name: &str| {
            back.query_pairs().find(|(own, _)| own == name).map(|(_, value)| value.into_owned())
        };
        if get("state").as_deref() != Some(state) {
            return Err(self.no("its redirect answers another request (`state`)"));
        }
        let must_say = self.at().says.authorization_response_iss_parameter_supported;
        match get("iss") {
            Some(issuer) if issuer == self.at().issuer => {}
            None if !must_say => {}
            _ => return Err(self.no("its redirect is of another server (`iss`)")),
        }
        if let Some(error) = get("error") {
            let why = get("error_description").map(|why| format!(": {why}")).unwrap_or_default();
            let said = Seal::default().quote(&format!("{error}{why}"));
            return Err(self.no(&format!("it refused a code ({said})")));
        }
        get("code").ok_or_else(|| self.no("its redirect has no code"))
    }
}

fn is_callback(url: &Url) -> bool {
    let mut plain = url.clone();
    plain.set_query(None);
    plain.set_fragment(None);
    plain.as_str() == REDIRECT
}

fn encoded(form: &Pairs) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()
}

/// Name and secret as RFC 6749 has them: encoded like a form first.
fn basic(id: &str, secret: &str) -> HeaderValue {
    let plain = |word: &str| form_urlencoded::byte_serialize(word.as_bytes()).collect::<String>();
    let both = BASE64_STANDARD.encode(format!("{}:{}", plain(id), plain(secret)));
    let mut value = HeaderValue::try_from(format!("Basic {both}")).expect("base64 fits a header");
    value.set_sensitive(true);
    value
}

/// What must not come back in an error's words.
fn seal(form: &Pairs, client: &Client) -> Seal {
    const SECRET: [&str; 4] = ["code", "code_verifier", "refresh_token", "client_assertion"];
    let said =
        form.iter().filter(|(name, _)| SECRET.contains(name)).map(|(_, value)| value.clone());
    Seal::of(said.chain(client.secret().map(str::to_owned)).collect())
}
