# What Carillon adds to jq for connectors.

# A non-empty text or a number as text; anything else is missing (null). For ids and names.
def text: if isstring and . != "" then . elif isnumber then tostring else null end;

# Drops what carries nothing, so that a unified field is either there with a value or absent.
def omit_missing: with_entries(select(.value | . != null and . != "" and . != [] and . != {}));

# True when the input is one of the given values.
def IN(values): . as $x | any(values; . == $x);
