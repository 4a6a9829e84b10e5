//! Every policy that the documentation shows in full is one.

use std::collections::BTreeMap;

use gatereeve_controller_core::policy::Policy;

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap();
    let (policy, _) = rest.split_once(end).unwrap();
    policy
}

fn check(text: &str, rules: usize, tests: usize) {
    let (policy, _) = Policy::parse(text, &BTreeMap::new()).unwrap();
    assert_eq!((policy.rule_count(), policy.test_count()), (rules, tests));
}

#[test]
fn the_readme_the_language_page_and_the_packaged_file_hold_policies() {
    check(
        include_str!("../../../../packaging/config/policy.toml"),
        2,
        2,
    );
    let page = include_str!("../../../docs/policy-language.md");
    check(between(page, "```toml\n", "```"), 2, 1);
    let readme = include_str!("../../../../README.md");
    check(between(readme, "<<'END'\n", "\nEND\n"), 2, 1);
}
