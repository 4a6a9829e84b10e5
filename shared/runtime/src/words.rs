//! Errors as text for people.

use std::error::Error;

/// The error and what caused it, one behind the other. A cause that the text ends with already is not said again:
/// many errors have the one beneath in their own words.
#[must_use]
pub fn in_words(error: impl AsRef<dyn Error>) -> String {
    let error = error.as_ref();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    enum Failed {
        #[error("cannot read it: {0}")]
        Says(#[from] io::Error),
        #[error("cannot do it")]
        Keeps(#[source] Box<Self>),
    }

    struct Boxed(Box<dyn Error>);

    impl AsRef<dyn Error> for Boxed {
        fn as_ref(&self) -> &(dyn Error + 'static) {
            self.0.as_ref()
        }
    }

    #[test]
    fn every_cause_is_said_once() {
        let says = || Failed::Says(io::Error::other("it is gone"));
        let text = in_words(Boxed(Box::new(says())));
        assert_eq!(text, "cannot read it: it is gone");
        let text = in_words(Boxed(Box::new(Failed::Keeps(Box::new(says())))));
        assert_eq!(text, "cannot do it: cannot read it: it is gone");
    }
}
