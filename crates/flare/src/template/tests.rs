use super::*;

fn check(text: &str, expected: Result<&str, &str>) {
    let found = Template::parse(text);
    match (&found, expected) {
        (Ok(found), Ok(expected)) => {
            assert_eq!(found.as_str(), expected, "{text:?}");
            assert_eq!(
                &Template::parse(expected).unwrap(),
                found,
                "{text:?}: the normalised form is its own"
            );
        }
        (Err(found), Err(expected)) => {
            let (message, value) = (found.to_string(), format!("value: {text:?}"));
            assert!(message.contains(expected), "{text:?}: {message}");
            assert!(message.contains("field: endpoint"), "{text:?}: {message}");
            assert!(message.contains(&value) || message.contains("bytes: "), "{text:?}: {message}");
        }
        _ => panic!("{text:?}: {found:?}, expected {expected:?}"),
    }
}

#[test]
fn a_template_is_normalised() {
    check("https://api.example.com/orders/{id}", Ok("https://api.example.com/orders/{id}"));
    check("http://api.example.com/{id}", Ok("http://api.example.com/{id}"));
    check("HTTP://API.example.COM/Orders/{Id}", Ok("http://api.example.com/Orders/{Id}"));
    check("https://api.example.com:443/{id}", Ok("https://api.example.com/{id}"));
    check("http://api.example.com:8080/{id}", Ok("http://api.example.com:8080/{id}"));
    check("http://localhost/{id}", Ok("http://localhost/{id}"));
    check("http://[::1]/{id}", Ok("http://[::1]/{id}"));
    check("http://127.0.0.1/{id}", Ok("http://127.0.0.1/{id}"));
    check("https://bücher.example/{id}", Ok("https://xn--bcher-kva.example/{id}"));
    check("https://a.example/{id}/", Ok("https://a.example/{id}"));
    check("https://a.example/{ id }", Ok("https://a.example/{id}"));
    check("https://a.example/{   id}", Ok("https://a.example/{id}"));
    check("https://a.example/{id   }/", Ok("https://a.example/{id}"));
    check("https://a.example/{a}/{b}/{c}", Ok("https://a.example/{a}/{b}/{c}"));
    check("https://a.example/{id}/items", Ok("https://a.example/{id}/items"));
    check("https://a.example/{id}/items/{item}", Ok("https://a.example/{id}/items/{item}"));
    check("https://a.example/{_}", Ok("https://a.example/{_}"));
    check("https://a.example/{a-b_c9}", Ok("https://a.example/{a-b_c9}"));
    check("https://a.example/{Id}/{id}", Ok("https://a.example/{Id}/{id}"));
    check("https://a.example/{revisions}", Ok("https://a.example/{revisions}"));
    check("https://a.example/{Revision}", Ok("https://a.example/{Revision}"));
    check("https://a.example/revision/{id}", Ok("https://a.example/revision/{id}"));
    check("https://a.example/%7Ejoe/{id}", Ok("https://a.example/~joe/{id}"));
    check("https://a.example/%7Bx%7D/{id}", Ok("https://a.example/%7Bx%7D/{id}"));
    check("https://a.example/a b/{id}", Ok("https://a.example/a%20b/{id}"));
    check("https://a.example/a%3Fb/{id}", Ok("https://a.example/a%3Fb/{id}"));
    check("https://a.example/é/{id}", Ok("https://a.example/%C3%A9/{id}"));
    check("https://a.example/id/{id}", Ok("https://a.example/id/{id}"));
    check("https://a.example/*/{id}", Ok("https://a.example/*/{id}"));
}

#[test]
fn a_template_needs_an_absolute_url() {
    check("", Err("absolute http or https URL"));
    check("/", Err("absolute http or https URL"));
    check("{id}", Err("absolute http or https URL"));
    check("/orders/{id}", Err("absolute http or https URL"));
    check("//a.example/{id}", Err("absolute http or https URL"));
    check("a.example/{id}", Err("absolute http or https URL"));
    check("ftp://a.example/{id}", Err("absolute http or https URL"));
    check("file:///{id}", Err("absolute http or https URL"));
    check("https:a.example/{id}", Err("absolute http or https URL"));
    check("https:/a.example/{id}", Err("absolute http or https URL"));
    check(" https://a.example/{id}", Err("absolute http or https URL"));
    check("{scheme}://a.example/{id}", Err("absolute http or https URL"));
    check("https://", Err("no valid host"));
    check("https:///{id}", Err("no valid host"));
    check("https://:80/{id}", Err("no valid host"));
    check("https://a.example:x/{id}", Err("no valid host"));
    check("https://a.example:65536/{id}", Err("no valid host"));
    check("https://joe@a.example/{id}", Err("user information"));
    check("https://joe:pw@a.example/{id}", Err("user information"));
    check("https://{joe}@a.example/{id}", Err("user information"));
    check("https://a.example/{id}?a=b", Err("a query"));
    check("https://a.example/{id}?", Err("a query"));
    check("https://a.example?a={id}", Err("a query"));
    check("https://a.example/{id}#a", Err("a fragment"));
    check("https://a.example/{id}#", Err("a fragment"));
    check("https://a.example/{id}#a?b", Err("a fragment"));
    check("https://a.example/{id}\\a", Err("backslash or control character"));
    check("https://a.example/{id}\n", Err("backslash or control character"));
    check("https://a.example//{id}", Err("empty path segment"));
    check("https://a.example/{id}//", Err("empty path segment"));
    check("https://a.example/./{id}", Err("`.` or `..`"));
    check("https://a.example/a/../{id}", Err("`.` or `..`"));
    check("https://a.example/%2e%2E/{id}", Err("`.` or `..`"));
    check("https://a.example/%ff/{id}", Err("not UTF-8"));
    check(&format!("https://a.example/{{id}}/{}", "a".repeat(2048)), Err("longer than 2,048 bytes"));
}

#[test]
fn a_wildcard_is_a_whole_segment_of_the_path_with_a_name_of_its_own() {
    check("https://a.example", Err("no {wildcard}"));
    check("https://a.example/", Err("no {wildcard}"));
    check("https://a.example/orders", Err("no {wildcard}"));
    check("https://a.example/%7Bid%7D", Err("no {wildcard}"));
    check("https://{host}/{id}", Err("wildcard before the path"));
    check("https://{host}.example/orders", Err("wildcard before the path"));
    check("https://a.example:{port}/{id}", Err("wildcard before the path"));
    check("https://a.example/{}", Err("empty braces"));
    check("https://a.example/{  }", Err("empty braces"));
    check("https://a.example/{a}/{}", Err("empty braces"));
    check("https://a.example/{{id}}", Err("nested braces"));
    check("https://a.example/{a{b}}", Err("nested braces"));
    check("https://a.example/{a}{b}", Err("nested braces"));
    check("https://a.example/{a}}", Err("nested braces"));
    check("https://a.example/{{a}", Err("nested braces"));
    check("https://a.example/{id", Err("not a whole {wildcard}"));
    check("https://a.example/id}", Err("not a whole {wildcard}"));
    check("https://a.example/{", Err("not a whole {wildcard}"));
    check("https://a.example/}", Err("not a whole {wildcard}"));
    check("https://a.example/}{", Err("not a whole {wildcard}"));
    check("https://a.example/order-{id}", Err("not a whole {wildcard}"));
    check("https://a.example/{id}.json", Err("not a whole {wildcard}"));
    check("https://a.example/{a/b}", Err("not a whole {wildcard}"));
    check("https://a.example/{a}/b{c}", Err("not a whole {wildcard}"));
    check("https://a.example/ {id}", Err("not a whole {wildcard}"));
    check("https://a.example/{a b}", Err("[A-Za-z_][A-Za-z0-9_-]*"));
    check("https://a.example/{9a}", Err("[A-Za-z_][A-Za-z0-9_-]*"));
    check("https://a.example/{-a}", Err("[A-Za-z_][A-Za-z0-9_-]*"));
    check("https://a.example/{a.b}", Err("[A-Za-z_][A-Za-z0-9_-]*"));
    check("https://a.example/{é}", Err("[A-Za-z_][A-Za-z0-9_-]*"));
    check("https://a.example/{*}", Err("[A-Za-z_][A-Za-z0-9_-]*"));
    check("https://a.example/{%61}", Err("[A-Za-z_][A-Za-z0-9_-]*"));
    check("https://a.example/{id}/{id}", Err("two wildcards named \"id\""));
    check("https://a.example/{id}/a/{ id }", Err("two wildcards named \"id\""));
    check("https://a.example/{revision}", Err("reserved"));
    check("https://a.example/{id}/{ revision }", Err("reserved"));
}

#[test]
fn templates_that_differ_in_names_only_have_one_pattern() {
    let pattern = |text| Template::parse(text).unwrap().pattern();
    assert_eq!(pattern("https://a.example/x/{id}/y"), "https://a.example/x/{}/y");
    assert_eq!(pattern("https://a.example/{a}/{b}"), pattern("https://A.example:443/{b}/{ c }/"));
    assert_ne!(pattern("https://a.example/{a}/b"), pattern("https://a.example/{a}/{b}"));
    assert_ne!(pattern("https://a.example/{a}"), pattern("http://a.example/{a}"));
    assert_ne!(pattern("https://a.example/%7B%7D/{a}"), pattern("https://a.example/{b}/{a}"));
}

fn check_captures(template: &str, url: &str, expected: Option<&[(&str, &str)]>) {
    let (template, url) = (Template::parse(template).unwrap(), DocumentUrl::parse(url).unwrap());
    let captures = template.captures(&url);
    let found = captures.as_ref().map(|captures| captures.iter().collect::<Vec<_>>());
    assert_eq!(found.as_deref(), expected, "{template} on {url}");
    for (name, value) in expected.unwrap_or_default() {
        assert_eq!(captures.as_ref().unwrap().get(name), Some(*value), "{template} on {url}");
    }
}

#[test]
fn wildcards_capture_decoded_segments() {
    let orders = "https://a.example/orders/{id}";
    check_captures(orders, "https://a.example/orders/17", Some(&[("id", "17")]));
    check_captures(orders, "https://A.example:443/orders/17/", Some(&[("id", "17")]));
    check_captures(orders, "https://a.example/%6frders/a%2Fb", Some(&[("id", "a/b")]));
    check_captures(orders, "https://a.example/orders/%C3%A9%0A", Some(&[("id", "é\n")]));
    check_captures(orders, "https://a.example/orders/%252F", Some(&[("id", "%2F")]));
    check_captures(orders, "https://a.example/orders", None);
    check_captures(orders, "https://a.example/orders/17/items", None);
    check_captures(orders, "https://a.example/Orders/17", None);
    check_captures(orders, "https://b.example/orders/17", None);
    check_captures(orders, "http://a.example/orders/17", None);
    check_captures(orders, "https://a.example:8443/orders/17", None);
    check_captures("https://a.example/{a}/{b}", "https://a.example/1/2", Some(&[("a", "1"), ("b", "2")]));
    check_captures("https://a.example/{b}/x/{a}", "https://a.example/1/x/2", Some(&[("b", "1"), ("a", "2")]));
}

#[test]
fn it_is_a_string_in_json_and_checked_when_read() {
    let template: Template = serde_json::from_str(r#""https://A.example/{ id }/""#).unwrap();
    assert_eq!(serde_json::to_string(&template).unwrap(), r#""https://a.example/{id}""#);
    assert_eq!(
        template.captures(&DocumentUrl::parse("https://a.example/1").unwrap()).unwrap().get("no"),
        None
    );
    let error = serde_json::from_str::<Template>(r#""https://a.example/{}""#).unwrap_err();
    assert!(error.to_string().contains("endpoint has empty braces"), "{error}");
}
