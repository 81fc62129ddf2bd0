//! What a session is to be given, by hand, into [`NewResource`]s.

use crate::api::body::{Node, Object};
use crate::api::error::ApiError;
use crate::api::{App, files};
use crate::environment::Environment;
use crate::environment::repository::{Checkout, RepositoryPath, RepositoryUrl};
use crate::limits::MAX_SESSION_RESOURCES;
use crate::runtime::RuntimeError;
use crate::runtime::repositories::RepositoryError;
use crate::runtime::resources::{NewResource, ResourceError, UploadPath};

/// `resources` of a new session.
///
/// # Errors
/// Names the first field that is wrong; what the environment does not allow.
pub(in crate::api) fn all(
    app: &App,
    node: &Node<'_>,
    environment: &Environment,
) -> Result<Vec<NewResource>, ApiError> {
    let mut all = Vec::new();
    for node in node.list(MAX_SESSION_RESOURCES)? {
        let resource = resource(app, &node)?;
        if let NewResource::GithubRepository { url, .. } = &resource {
            let allowed = app.runtime().check_repository(url, environment);
            allowed.map_err(|error| {
                ApiError::field(&format!("{}.url", node.path()), &error).code(code(&error))
            })?;
        }
        all.push(resource);
    }
    Ok(all)
}

/// What a session that is there is given.
///
/// # Errors
/// Names the first field that is wrong; anything but a file.
pub(super) fn file_only(app: &App, node: &Node<'_>) -> Result<NewResource, ApiError> {
    let kind = node.object()?.need("type")?;
    match kind.string()? {
        "file" => resource(app, node),
        "github_repository" | "memory_store" => {
            Err(kind.refuse("must be `file`: anything else is given when a session is created"))
        }
        _ => Err(kind.refuse("must be `file`")),
    }
}

fn resource(app: &App, node: &Node<'_>) -> Result<NewResource, ApiError> {
    let mut object = node.object()?;
    let kind = object.need("type")?;
    let resource = match kind.string()? {
        "file" => file(app, &mut object)?,
        "github_repository" => repository(app, &mut object)?,
        "memory_store" => {
            return Err(kind.refuse("memory stores are not supported by this server"));
        }
        _ => return Err(kind.refuse("must be `file`, `github_repository` or `memory_store`")),
    };
    object.done()?;
    Ok(resource)
}

fn file(app: &App, object: &mut Object<'_>) -> Result<NewResource, ApiError> {
    let id = object.need("file_id")?;
    let (file_id, _) = files::find(app, id.string()?).map_err(|error| error.at(id.path()))?;
    let path = object.maybe("mount_path");
    let path = path.map(|node| node.string()?.parse().map_err(|problem| node.refuse(problem)));
    let mount_path = path.transpose()?.unwrap_or_else(|| UploadPath::of(&file_id));
    Ok(NewResource::File { file_id, mount_path })
}

fn repository(app: &App, object: &mut Object<'_>) -> Result<NewResource, ApiError> {
    let node = object.need("url")?;
    let url: RepositoryUrl = node.string()?.parse().map_err(|problem| node.refuse(problem))?;
    if app.options().strict && !is_hosted(&url) {
        return Err(node.refuse("must be https://github.com/OWNER/REPOSITORY, without .git"));
    }
    let mount_path = match object.maybe("mount_path") {
        Some(path) => parse(&path)?,
        None => RepositoryPath::of(&url).ok_or_else(|| {
            node.refuse("ends in no name that a directory can have: give a mount_path")
        })?,
    };
    let checkout = object.maybe("checkout").map(|node| checkout(&node)).transpose()?;
    let token = object.maybe("authorization_token").map(|node| parse(&node)).transpose()?;
    Ok(NewResource::GithubRepository { url, mount_path, checkout, token })
}

/// Whether the hosted service would take it.
fn is_hosted(url: &RepositoryUrl) -> bool {
    let path = url.as_str().strip_prefix("https://github.com/");
    path.is_some_and(|path| path.split('/').count() == 2 && !path.ends_with(".git"))
}

fn checkout(node: &Node<'_>) -> Result<Checkout, ApiError> {
    let mut object = node.object()?;
    let kind = object.need("type")?;
    let checkout = match kind.string()? {
        "branch" => Checkout::Branch { name: parse(&object.need("name")?)? },
        "commit" => Checkout::Commit { sha: parse(&object.need("sha")?)? },
        _ => return Err(kind.refuse("must be `branch` or `commit`")),
    };
    object.done()?;
    Ok(checkout)
}

/// Text that says more than that it is text. What is wrong with it is said without repeating it.
///
/// # Errors
/// Names the field.
pub(super) fn parse<T: TryFrom<String, Error = &'static str>>(
    node: &Node<'_>,
) -> Result<T, ApiError> {
    T::try_from(node.string()?.to_owned()).map_err(|problem| node.refuse(problem))
}

/// The protocol's word for it.
fn code(error: &RepositoryError) -> &'static str {
    error.kind().as_str()
}

/// What the runtime says of resources, with the path of the field that it is about.
pub(in crate::api) fn refused(error: RuntimeError, at: &str) -> ApiError {
    let field = match &error {
        RuntimeError::Resource(ResourceError::NoFile(_)) => "file_id",
        RuntimeError::Resource(
            ResourceError::Taken { .. } | ResourceError::RepositoryTaken { .. },
        ) => "mount_path",
        RuntimeError::Repository(
            RepositoryError::Authentication { .. }
            | RepositoryError::Forbidden
            | RepositoryError::NotFound,
        )
        | RuntimeError::Resource(ResourceError::NoToken) => "authorization_token",
        _ => "",
    };
    let path = [at, field].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
    let word = match &error {
        RuntimeError::Repository(error) => Some(code(error)),
        _ => None,
    };
    let error = ApiError::from(error);
    let error = match word {
        Some(word) => error.code(word),
        None => error,
    };
    if path.is_empty() { error } else { error.at(&path.join(".")) }
}
