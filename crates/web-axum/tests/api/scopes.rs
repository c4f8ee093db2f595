use evenkeel_web_axum::access::Scope::{self, Admin, Publish, Read, Subscribe};
use evenkeel_web_axum::access::Scopes;
use http::{Method, StatusCode};

use crate::support::World;

const ROUTES: &[(&str, &str, &[Scope])] = &[
    ("GET", "/", &[]),
    ("GET", "/health", &[]),
    ("GET", "/ready", &[]),
    ("GET", "/openapi.json", &[]),
    ("GET", "/docs", &[]),
    ("GET", "/resources", &[Read, Admin]),
    ("POST", "/resources", &[Admin]),
    ("GET", "/resources/a", &[Read, Admin]),
    ("DELETE", "/resources/a", &[Admin]),
    ("GET", "/resources/a/subscriptions", &[Subscribe, Read]),
    ("POST", "/resources/a/subscriptions", &[Subscribe]),
    ("GET", "/resources/a/subscriptions/b", &[Subscribe, Read]),
    ("DELETE", "/resources/a/subscriptions/b", &[Subscribe]),
    ("GET", "/documents/https://a.example/b", &[Publish, Read]),
    ("PUT", "/documents/https://a.example/b", &[Publish]),
    ("DELETE", "/documents/https://a.example/b", &[Publish]),
    ("POST", "/documents", &[Publish]),
    ("GET", "/subscriptions/b/deliveries", &[Subscribe, Read]),
    ("GET", "/subscriptions/b/attempts", &[Subscribe, Read]),
    ("GET", "/subscriptions/b/told", &[Subscribe, Read]),
    ("GET", "/subscriptions/b/stats", &[Subscribe, Read]),
    ("POST", "/subscriptions/b/pause", &[Subscribe]),
    ("POST", "/subscriptions/b/resume", &[Subscribe]),
    ("POST", "/subscriptions/b/disable", &[Subscribe]),
    ("POST", "/subscriptions/b/recover", &[Subscribe]),
    ("POST", "/subscriptions/b/rotate-secret", &[Subscribe]),
    ("POST", "/subscriptions/b/ping", &[Subscribe]),
    ("POST", "/subscriptions/b/replay", &[Subscribe]),
    ("POST", "/subscriptions/b/pull", &[Subscribe]),
    ("POST", "/subscriptions/b/ack", &[Subscribe]),
    ("POST", "/subscriptions/b/release", &[Subscribe]),
    ("GET", "/notices", &[Subscribe, Read, Admin]),
    ("GET", "/definitions", &[Read, Admin]),
    ("GET", "/definitions/b/diagram", &[Read, Admin]),
    ("GET", "/runs", &[Read, Admin]),
    ("POST", "/runs", &[Admin]),
    ("GET", "/runs/a", &[Read, Admin]),
    ("GET", "/runs/a/history", &[Read, Admin]),
    ("GET", "/runs/a/timeline.svg", &[Read, Admin]),
    ("POST", "/runs/a/signals/b", &[Admin]),
    ("POST", "/runs/a/cancel", &[Admin]),
    ("POST", "/runs/a/resume", &[Admin]),
    ("POST", "/runs/a/retry", &[Admin]),
    ("GET", "/streams/b", &[Read, Publish]),
    ("GET", "/streams/b/events", &[Read, Publish]),
    ("POST", "/streams/b/events", &[Publish]),
    ("GET", "/streams/b/follow", &[Read]),
    ("GET", "/log", &[Read]),
    ("GET", "/log/follow", &[Read]),
    ("GET", "/projections", &[Read, Admin]),
    ("GET", "/projections/b", &[Read, Admin]),
    ("POST", "/projections/b/pause", &[Admin]),
    ("POST", "/projections/b/resume", &[Admin]),
    ("POST", "/projections/b/reset", &[Admin]),
    ("POST", "/projections/b/rebuild", &[Admin]),
    ("POST", "/projections/b/cancel-rebuild", &[Admin]),
    ("GET", "/projections/b/parked", &[Read, Admin]),
    ("POST", "/projections/b/parked/retry", &[Admin]),
    ("POST", "/projections/b/parked/dismiss", &[Admin]),
    ("GET", "/projections/b/dead-letters", &[Read, Admin]),
    ("POST", "/projections/b/dead-letters/retry", &[Admin]),
    ("POST", "/projections/b/dead-letters/dismiss", &[Admin]),
    ("GET", "/operations/idempotency/running", &[Admin]),
    ("GET", "/operations/idempotency/operation", &[Admin]),
    ("POST", "/operations/idempotency/release", &[Admin]),
    ("GET", "/operations/queues", &[Admin]),
    ("GET", "/operations/jobs", &[Admin]),
    ("GET", "/operations/job", &[Admin]),
    ("POST", "/operations/jobs/retry", &[Admin]),
    ("POST", "/operations/jobs/cancel", &[Admin]),
];

#[tokio::test]
async fn each_route_is_open_to_its_scopes_and_to_no_other() {
    for scope in Scope::ALL {
        let world = World::new().with_scopes([scope]);
        for (method, path, scopes) in ROUTES {
            let seen = world.call(method.parse().unwrap(), path, "").await;
            if scopes.is_empty() || scopes.contains(&scope) {
                assert_ne!(seen.status, StatusCode::FORBIDDEN, "{scope}: {method} {path}");
            } else {
                let names: Vec<_> = scopes.iter().map(|scope| scope.as_str()).collect();
                seen.is_problem(403, "forbidden", &names);
            }
        }
    }
}

#[tokio::test]
async fn whoever_has_all_scopes_or_is_not_asked_may_do_everything() {
    for world in [World::new().with_scopes(Scopes::all()), World::new()] {
        for (method, path, _) in ROUTES {
            let seen = world.call(method.parse().unwrap(), path, "").await;
            assert_ne!(seen.status, StatusCode::FORBIDDEN, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn whoever_has_no_scope_sees_only_what_is_public() {
    let world = World::new().with_scopes([]);
    for (method, path, scopes) in ROUTES {
        let seen = world.call(method.parse().unwrap(), path, "").await;
        assert_eq!(seen.status == StatusCode::FORBIDDEN, !scopes.is_empty(), "{method} {path}");
    }
    let seen = world.call(Method::PATCH, "/resources", "").await;
    seen.is_problem(405, "method-not-allowed", &[]);
}

#[test]
fn every_documented_route_is_in_the_table_above() {
    let document = serde_json::to_value(evenkeel_web_axum::openapi::document()).unwrap();
    let mut documented = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let path = path.replace("{url}", "https://a.example/b");
            let path = path.replace("{id}", if path.starts_with("/sub") { "b" } else { "a" });
            let needs = operation["security"].as_array().unwrap().iter();
            let mut scopes: Vec<_> =
                needs.map(|need| need["bearer"][0].as_str().unwrap().to_owned()).collect();
            scopes.sort_unstable();
            documented.push((
                method.to_uppercase(),
                path.replace("{subscription}", "b").replace("{name}", "b").replace("{stream}", "b"),
                scopes,
            ));
        }
    }
    documented.sort_unstable();
    let mut tabled: Vec<_> = ROUTES
        .iter()
        .map(|(method, path, scopes)| {
            let mut scopes: Vec<_> = scopes.iter().map(Scope::to_string).collect();
            scopes.sort_unstable();
            ((*method).to_owned(), (*path).to_owned(), scopes)
        })
        .collect();
    tabled.sort_unstable();
    assert_eq!(documented, tabled);
}
