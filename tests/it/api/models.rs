//! Models: what settings and local servers name, in pages of the protocol's other kind.

use serde_json::{Value, json};

use super::Server;
use crate::support::Casemate;

/// A server whose models are those of its routes: nothing else listens where local servers would.
fn server() -> Server {
    let routes = ["b=ollama/x", "a=ollama/y", "c=scripted:/nowhere", "g*=ollama"];
    let args: Vec<_> = routes.iter().flat_map(|route| ["--route", *route]).collect();
    Server::of(Casemate::new(), &args)
}

#[test]
fn models_are_listed_both_ways() {
    let server = server();
    let whole = server.get("/v1/models").expect(200);
    let ids = |page: &Value| -> Vec<String> {
        let data = page["data"].as_array().unwrap().iter();
        data.map(|model| model["id"].as_str().unwrap().to_owned()).collect()
    };
    // The machine may have a model server of its own.
    let all = ids(&whole);
    assert!(["a", "b", "c"].iter().all(|id| all.contains(&(*id).to_owned())), "{all:?}");
    assert!(all.is_sorted() && !all.contains(&"g*".to_owned()), "{all:?}");
    let shown = whole["data"].as_array().unwrap().iter().find(|model| model["id"] == "a").unwrap();
    insta::assert_snapshot!("model", super::pretty(shown));
    let ends = |page: &Value| (page["first_id"].clone(), page["last_id"].clone());
    let page = |query: &str| server.get(&format!("/v1/models?limit=1&{query}")).expect(200);
    for (query, id) in [("after_id=a", "b"), ("before_id=b", "a"), ("after_id=b", "c")] {
        let page = page(query);
        assert_eq!(
            (ids(&page), ends(&page)),
            (vec![id.to_owned()], (json!(id), json!(id))),
            "{query}"
        );
    }
    assert_eq!(page("after_id=a")["has_more"], true);
    let none = page("lifecycle[]=retired");
    let empty = json!({ "data": [], "has_more": false, "first_id": null, "last_id": null });
    assert_eq!(none, empty);
    for query in
        ["after_id=none", "after_id=a&before_id=b", "limit=0", "limit=1001", "lifecycle[]=old"]
    {
        assert_eq!(server.get(&format!("/v1/models?{query}")).error().0, 400, "{query}");
    }
}

#[test]
fn a_model_that_a_route_leads_to_is_known() {
    let server = server();
    for id in ["a", "ollama/qwen3:8b", "ollama%2Fqwen3:8b", "g5"] {
        let shown = id.replace("%2F", "/");
        assert_eq!(server.get(&format!("/v1/models/{id}")).expect(200)["id"], json!(shown));
    }
    for id in ["none", "scripted:/etc/passwd", "ollama/", "%ff"] {
        assert_eq!(server.get(&format!("/v1/models/{id}")).error().0, 404, "{id}");
    }
}
