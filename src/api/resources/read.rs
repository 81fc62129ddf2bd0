//! What a session is to be given, by hand, into [`NewResource`]s.

use crate::api::body::{Node, Object};
use crate::api::error::ApiError;
use crate::api::{App, files};
use crate::limits::MAX_SESSION_RESOURCES;
use crate::runtime::RuntimeError;
use crate::runtime::resources::{NewResource, ResourceError, UploadPath};

/// `resources` of a new session.
///
/// # Errors
/// Names the first field that is wrong.
pub(in crate::api) fn all(app: &App, node: &Node<'_>) -> Result<Vec<NewResource>, ApiError> {
    let nodes = node.list(MAX_SESSION_RESOURCES)?;
    nodes.iter().map(|node| resource(app, node)).collect()
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
        "github_repository" => {
            return Err(kind.refuse("repositories are not supported by this server"));
        }
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

/// What the runtime says of resources, with the path of the field that it is about.
pub(in crate::api) fn refused(error: RuntimeError, at: &str) -> ApiError {
    let field = match &error {
        RuntimeError::Resource(ResourceError::NoFile(_)) => "file_id",
        RuntimeError::Resource(ResourceError::Taken { .. }) => "mount_path",
        _ => "",
    };
    let path = [at, field].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
    let error = ApiError::from(error);
    if path.is_empty() { error } else { error.at(&path.join(".")) }
}
