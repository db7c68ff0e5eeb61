# What a coordinator computes from the answers of members: the same as replication/src/coverage.rs and choose.rs.
# Messages are proto3 JSON as grpcurl prints it: a number that is zero is not there.

def hex: explode | map(if . >= 97 then . - 87 elif . >= 65 then . - 55 else . - 48 end) | reduce .[] as $digit (0; . * 16 + $digit);

# A log position, as something that compares: its two halves, since a double does not hold 64 bits.
def lsn: split("/") | map(hex);

def order_of_rule: [.id.term, .id.version];

# How far a log goes: by its last rule, and only within one rule by its length.
def order_of_report: (.rules[0] // {id: {term: 0, version: 0}} | order_of_rule) + (.position | lsn);

# Of an array of voters, those whose acks would count for one of them. An unknown zone is never another zone.
def ackers_of($primary):
  map(select(.member != $primary.member and .zone != $primary.zone and .zone != "unknown" and $primary.zone != "unknown"));

def is_full: .kind == "VOTER_KIND_FULL";

# Of a rule: the full voters outside `$recruited` that k others outside it could ack. U holds when there are none.
def may_still_serve($recruited):
  (.k // 0) as $k
  | [.voters[] | select(.member | IN($recruited[]) | not)] as $outside
  | [$outside[] | select(is_full) | . as $primary | select($outside | ackers_of($primary) | length >= $k) | .member];

# Of a rule: the full voters among `$recruited` that k others among them can ack. E holds when there are any.
def candidates($recruited):
  (.k // 0) as $k
  | [.voters[] | select(.member | IN($recruited[]))] as $inside
  | [$inside[] | select(is_full) | . as $primary | select($inside | ackers_of($primary) | length >= $k) | .member];

# Of a rule: why members that miss the primary would not suffice; nothing when they would.
def too_few($missing):
  (may_still_serve($missing) | select(length > 0) | "\(join(", ")) may still serve: too few of the others miss the primary"),
  (candidates($missing) | select(length == 0) | "nobody of those who miss the primary could be acked by the others");

# Of all reports: the certificate of a promotion, or an error that says what is missing.
def certificate($attempt):
  . as $reports
  | map(.member) as $recruited
  | (map(select(.rules)) | max_by(.rules[0] | order_of_rule) // error("no recruited member holds a rule") | .rules) as $open
  | [$open[] | .id as $id | may_still_serve($recruited)[] | "under rule \($id.term).\($id.version) \(.) may still serve"]
  | (select(length > 0) | error(join("; "))),
    ( $open[0] as $rule
    | ($rule | candidates($recruited)) as $candidates
    | ($reports | map(select(.member | IN($open[].voters[].member))) | max_by(order_of_report)) as $best
    | ($reports | map(select((.member | IN($candidates[])) and order_of_report == ($best | order_of_report)) | .member) | sort) as $chosen
    | if $candidates == [] then error("nobody who was recruited could be acked by the others")
      elif $chosen == [] then error("\($best.member) holds log that no candidate holds, and cannot be promoted itself")
      else {
        attempt: $attempt,
        reports: $reports,
        rule: $rule,
        absent: [$rule.voters[].member | select(IN($recruited[]) | not)],
        chosen: $chosen[0],
        position: $best.position
      } end);

# Of the answers of GetStatus: the newest rule that anybody has read, or heard that a peer has.
def newest_rule: [.[] | .rule, .peers[]?.said?.rule | select(.)] | max_by(order_of_rule);

# Of the answers of GetStatus: a term above everything that was promised or begun.
def next_term:
  [.[] | .rule?.id?.term, .promise?.maxTerm, (.peers[]?.said? | .promised?, .rule?.id?.term) | select(.)] | max + 1;
