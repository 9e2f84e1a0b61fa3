//! Authentication and authorization of API requests by token.

use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use crate::directory::{AccountNo, Directory, TokenScope};

use super::error::ApiError;
use super::request::RequestContext;
use super::request_body::Field;

/// Error text for a large body without a token in the head: a token inside such a body is not read.
const UNREAD: &str = "a token in the body is looked for in bodies of up to 16384 octets; send it as X-Auth-Token";

/// Credentials found in a request.
#[derive(Debug, PartialEq, Eq)]
enum Credentials {
    Nothing,
    Token(String),
    Basic,
}

/// Owner of the token in the head of a request, checked before any of the body is received. `None` if the head has no
/// token or an unknown one. The body may still hold another token: [`identify`] decides.
pub(super) fn by_head(head: &Parts, ask: &RequestContext, directory: &Directory) -> Option<TokenScope> {
    match credentials(head, ask) {
        Credentials::Token(token) => directory.bearer(&token),
        Credentials::Nothing | Credentials::Basic => None,
    }
}

/// Authenticates a request. The token is taken from the first place that has one: `X-Auth-Token`, the parameter
/// `auth_token`, then `Authorization`. Returns 401 if there is no token or it is unknown.
pub(super) fn identify(head: &Parts, ask: &mut RequestContext, directory: &Directory) -> Result<TokenScope, ApiError> {
    let token = match credentials(head, ask) {
        Credentials::Nothing if ask.unread => return Err(ApiError::Unauthenticated { cause: Some(UNREAD) }),
        Credentials::Nothing => return Err(ApiError::Unauthenticated { cause: None }),
        Credentials::Basic => {
            let cause = "Basic authentication is not supported; send a token as X-Auth-Token or as Bearer";
            return Err(ApiError::Unauthenticated { cause: Some(cause) });
        }
        Credentials::Token(token) => token,
    };
    let bearer = directory.bearer(&token).ok_or(ApiError::WrongToken)?;
    ask.bearer = Some(bearer);
    ask.token = token;
    Ok(bearer)
}

/// Checks that the account of the path is the token's own account or one below it; otherwise 403.
pub(super) fn authorise(directory: &Directory, bearer: TokenScope, account: AccountNo) -> Result<(), ApiError> {
    if directory.may_see(&bearer, account) { Ok(()) } else { Err(ApiError::Forbidden) }
}

fn credentials(head: &Parts, ask: &RequestContext) -> Credentials {
    // A header value that is not text counts as an invalid token. It must not make us take the token from another
    // place.
    let header = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap_or_default().to_owned());
    if let Some(token) = header("x-auth-token") {
        return Credentials::Token(token);
    }
    match ask.parameter("auth_token") {
        Some(Field::Text(token)) => return Credentials::Token(token),
        Some(_) => return Credentials::Token(String::new()),
        None => {}
    }
    let parameter = || match ask.parameter("authorization") {
        Some(Field::Text(text)) => Some(text),
        _ => None,
    };
    header(AUTHORIZATION.as_str()).or_else(parameter).map_or(Credentials::Nothing, |text| from_authorization(&text))
}

fn from_authorization(text: &str) -> Credentials {
    let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        Credentials::Basic
    } else if scheme.eq_ignore_ascii_case("bearer") {
        Credentials::Token(rest.trim().to_owned())
    } else {
        Credentials::Token(String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_that_is_told_is_the_one_that_holds() {
        assert!(UNREAD.contains(&crate::api::body::MAX_WITHOUT_TOKEN.to_string()));
    }

    #[test]
    fn authorization_has_a_scheme() {
        let token = |text: &str| Credentials::Token(text.to_owned());
        assert_eq!(from_authorization("Bearer abc"), token("abc"));
        assert_eq!(from_authorization("bearer   abc "), token("abc"));
        assert_eq!(from_authorization("BASIC YTpi"), Credentials::Basic);
        assert_eq!(from_authorization("abc"), token(""));
        assert_eq!(from_authorization("Digest abc"), token(""));
    }
}
