# What Carillon adds to jq for connectors, besides `text`, `omit_missing` and `unix_seconds`.

# True when the input is one of the given values.
def IN(values): . as $x | any(values; . == $x);
