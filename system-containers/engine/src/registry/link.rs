//! The `Link` header (RFC 8288), as far as lists that come page by page need it.

use hyper::HeaderMap;
use hyper::header::LINK;

/// Where the next page is, as it is written: often relative.
pub fn next(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(LINK).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(links).find(|(_, parameters)| is_next(parameters)).map(|(target, _)| target)
}

/// The links of a value: what is between `<` and `>`, and what follows up to the next one.
fn links(value: &str) -> impl Iterator<Item = (&str, &str)> {
    value.split('<').skip(1).filter_map(|link| link.split_once('>'))
}

fn is_next(parameters: &str) -> bool {
    parameters.split([';', ',']).filter_map(|parameter| parameter.split_once('=')).any(|(name, value)| {
        let relations = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("rel")
            && relations.split_ascii_whitespace().any(|relation| relation.eq_ignore_ascii_case("next"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn the_next_page_is_found_among_links() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(LINK, HeaderValue::from_static(value));
            }
            next(&headers).map(str::to_owned)
        };
        let wanted = Some("/v2/a/referrers/b?n=1,2;3&last=x".to_owned());
        assert_eq!(of(&["</v2/a/referrers/b?n=1,2;3&last=x>; rel=\"next\""]), wanted);
        assert_eq!(of(&["</other>; rel=prev, </v2/a/referrers/b?n=1,2;3&last=x>;title=\"a\"; REL=next"]), wanted);
        assert_eq!(
            of(&["</other>; rel=\"first prev\"", "</v2/a/referrers/b?n=1,2;3&last=x>; rel=\"last next\""]),
            wanted
        );
        for none in [&[][..], &["</x>"], &["</x>; rel=prev"], &["x; rel=next"], &["<"]] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }
}
