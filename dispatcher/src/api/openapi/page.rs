//! The document as a page of plain HTML: no script, nothing from elsewhere. Every text of the
//! document is escaped, though all of them are our own.

use std::fmt::Write as _;

use serde_json::Value;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;\
    padding:0 1rem;color:#1a1a1a;background:#fff}\
    h2{margin-top:3rem;border-bottom:1px solid #ccc}\
    article{margin:1.5rem 0;padding:1rem;border:1px solid #ddd;border-radius:6px}\
    h3{margin:0 0 .5rem}h4{margin:1rem 0 .25rem}\
    code,pre{font:14px/1.4 ui-monospace,monospace;background:#f4f4f4}\
    pre{padding:.5rem;overflow:auto}table{border-collapse:collapse;width:100%}\
    td,th{text-align:left;vertical-align:top;padding:.25rem .5rem;border-top:1px solid #eee}\
    @media(prefers-color-scheme:dark){body{color:#e8e8e8;background:#161616}\
    code,pre{background:#262626}a{color:#8ab4f8}article,td,th,h2{border-color:#444}}";

pub(super) fn render(document: &Value) -> String {
    let title = text(document, "/info/title");
    let mut page = Page(String::new());
    page.raw("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.raw("<meta name=\"viewport\" content=\"width=device-width\"><title>");
    page.text(title);
    page.raw("</title><style>");
    page.raw(STYLE);
    page.raw("</style></head><body><main>");
    page.element("h1", title);
    page.element("p", text(document, "/info/description"));
    page.raw("<p>The same for programs: <a href=\"/openapi.json\">openapi.json</a></p>");
    page.credentials(document);
    let tags = document.pointer("/tags").and_then(Value::as_array);
    let tags: Vec<_> = tags.into_iter().flatten().collect();
    page.raw("<nav><ul>");
    for tag in &tags {
        let name = text(tag, "/name");
        page.raw("<li><a href=\"#");
        page.text(&anchor(name));
        page.raw("\">");
        page.text(name);
        page.raw("</a></li>");
    }
    page.raw("</ul></nav>");
    for tag in tags {
        page.section(document, tag);
    }
    page.schemas(document);
    page.raw("</main></body></html>");
    page.0
}

struct Page(String);

impl Page {
    /// Of ours, and not of the document.
    fn raw(&mut self, html: &str) {
        self.0.push_str(html);
    }

    fn text(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                other => self.0.push(other),
            }
        }
    }

    fn element(&mut self, name: &str, text: &str) {
        self.raw(&format!("<{name}>"));
        self.text(text);
        self.raw(&format!("</{name}>"));
    }

    fn credentials(&mut self, document: &Value) {
        self.raw("<h2>Credentials</h2><table>");
        for (name, scheme) in members(document, "/components/securitySchemes") {
            self.raw("<tr><td><code>");
            self.text(name);
            self.raw("</code></td><td>");
            self.text(text(scheme, "/scheme"));
            self.raw("</td><td>");
            self.text(text(scheme, "/description"));
            self.raw("</td></tr>");
        }
        self.raw("</table>");
    }

    fn section(&mut self, document: &Value, tag: &Value) {
        let name = text(tag, "/name");
        self.raw("<section><h2 id=\"");
        self.text(&anchor(name));
        self.raw("\">");
        self.text(name);
        self.raw("</h2>");
        self.element("p", text(tag, "/description"));
        for (path, item) in members(document, "/paths") {
            for method in METHODS {
                if let Some(operation) = item.get(method)
                    && text(operation, "/tags/0") == name
                {
                    self.operation(document, (method, path), operation);
                }
            }
        }
        self.raw("</section>");
    }

    fn operation(&mut self, document: &Value, (method, path): (&str, &str), operation: &Value) {
        self.raw("<article id=\"");
        self.text(text(operation, "/operationId"));
        self.raw("\"><h3>");
        self.text(text(operation, "/summary"));
        self.raw("</h3><p><code>");
        self.text(&format!("{} {path}", method.to_uppercase()));
        self.raw("</code></p>");
        if let Some(description) = operation.get("description").and_then(Value::as_str) {
            self.element("p", description);
        }
        self.credentials_of(document, operation);
        self.parameters(operation);
        if let Some(schema) = operation.pointer("/requestBody/content/application~1json/schema") {
            self.raw("<h4>Body</h4><p>");
            self.schema_name(schema);
            self.raw("</p>");
        }
        self.answers(document, operation);
        self.raw("</article>");
    }

    fn credentials_of(&mut self, document: &Value, operation: &Value) {
        let wanted = operation.get("security").or(document.get("security"));
        let wanted = wanted.and_then(Value::as_array).into_iter().flatten();
        let names: Vec<_> = wanted
            .filter_map(Value::as_object)
            .flat_map(serde_json::Map::keys)
            .map(String::as_str)
            .collect();
        self.raw("<p>Credentials: ");
        self.text(&if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(" or ")
        });
        self.raw("</p>");
    }

    fn parameters(&mut self, operation: &Value) {
        let parameters = operation.get("parameters").and_then(Value::as_array);
        let Some(parameters) = parameters.filter(|parameters| !parameters.is_empty()) else {
            return;
        };
        self.raw("<h4>Parameters</h4><table>");
        for parameter in parameters {
            self.raw("<tr><td><code>");
            self.text(text(parameter, "/name"));
            self.raw("</code></td><td>");
            self.text(text(parameter, "/in"));
            if parameter.get("required") == Some(&Value::Bool(true)) {
                self.text(", required");
            }
            self.raw("</td><td>");
            if let Some(schema) = parameter.get("schema") {
                self.schema_name(schema);
            }
            self.raw("</td><td>");
            self.text(text(parameter, "/description"));
            self.raw("</td></tr>");
        }
        self.raw("</table>");
    }

    fn answers(&mut self, document: &Value, operation: &Value) {
        self.raw("<h4>Answers</h4><table>");
        for (status, answer) in members(operation, "/responses") {
            let answer = resolve(document, answer);
            self.raw("<tr><td><code>");
            self.text(status);
            self.raw("</code></td><td>");
            self.text(text(answer, "/description"));
            let codes = answer.pointer("/content/application~1problem+json/schema/allOf/1");
            let codes = codes.and_then(|schema| schema.pointer("/properties/code/enum"));
            for code in codes.and_then(Value::as_array).into_iter().flatten() {
                self.raw(" <code>");
                self.text(code.as_str().unwrap_or_default());
                self.raw("</code>");
            }
            self.raw("</td><td>");
            if let Some(schema) = answer.pointer("/content/application~1json/schema") {
                self.schema_name(schema);
            }
            self.raw("</td></tr>");
        }
        self.raw("</table>");
    }

    /// A link to a named schema; an unnamed one in short.
    fn schema_name(&mut self, schema: &Value) {
        let named = schema.get("$ref").and_then(Value::as_str);
        if let Some(name) = named.and_then(|named| named.rsplit('/').next()) {
            self.raw("<a href=\"#schema-");
            self.text(&anchor(name));
            self.raw("\">");
            self.text(name);
            self.raw("</a>");
            return;
        }
        for part in ["oneOf", "anyOf", "allOf"] {
            for schema in schema
                .get(part)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                self.schema_name(schema);
                self.raw(" ");
            }
        }
        if let Some(items) = schema.get("items") {
            self.raw("array of ");
            self.schema_name(items);
        } else if let Some(kind) = schema.get("type") {
            self.text(&match kind.as_str() {
                Some(kind) => kind.to_owned(),
                None => kind.to_string(),
            });
        }
        for bound in ["minimum", "maximum", "minLength", "maxLength", "default"] {
            if let Some(value) = schema.get(bound) {
                self.text(&format!(", {bound} {value}"));
            }
        }
    }

    fn schemas(&mut self, document: &Value) {
        self.raw("<section><h2>Schemas</h2>");
        for (name, schema) in members(document, "/components/schemas") {
            self.raw("<article id=\"schema-");
            self.text(&anchor(name));
            self.raw("\">");
            self.element("h3", name);
            self.raw("<pre>");
            let mut printed = String::new();
            // Formatting into a String does not fail.
            write!(printed, "{schema:#}").unwrap_or_default();
            self.text(&printed);
            self.raw("</pre></article>");
        }
        self.raw("</section>");
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default()
}

fn members<'a>(
    value: &'a Value,
    pointer: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
    let members = value.pointer(pointer).and_then(Value::as_object);
    members.into_iter().flatten()
}

/// What a reference within the document names, or the value itself.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let place = value.get("$ref").and_then(Value::as_str);
    let place = place.and_then(|place| place.strip_prefix('#'));
    place
        .and_then(|place| document.pointer(place))
        .unwrap_or(value)
}

fn anchor(name: &str) -> String {
    let plain = |character: char| {
        if character.is_ascii_alphanumeric() {
            character.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    name.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_are_escaped_and_every_operation_is_shown() {
        let document = json!({
            "info": {"title": "<script>", "description": "\"&'"},
            "tags": [{"name": "A b", "description": "d"}],
            "paths": {"/x": {"get": {
                "tags": ["A b"], "operationId": "get_x", "summary": "Get < x", "responses": {},
            }}},
        });
        let page = render(&document);
        assert!(!page.contains("<script"), "{page}");
        for part in [
            "&lt;script&gt;",
            "&quot;&amp;&#39;",
            "Get &lt; x",
            "GET /x",
            "#a-b",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
    }
}
