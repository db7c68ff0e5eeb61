#!/bin/sh
# A failover from outside, with nothing but grpcurl and jq: what `holdfast failover` has an agent do, by the same calls.
#
#   failover.sh HOST:PORT ...          the gRPC addresses of all agents of the cluster
#
# HOLDFAST_CA, HOLDFAST_CERT and HOLDFAST_KEY name the files of `holdfast certs`; the certificate needs the roles observe
# and promote. Killed anywhere, it leaves promises and nothing else: run it again, and it begins above them.
#
# Ends with 0 when another primary serves, 3 when that is refused and nobody was promoted, 1 when something failed.
set -eu

: "${HOLDFAST_CA:?}" "${HOLDFAST_CERT:?}" "${HOLDFAST_KEY:?}"
[ $# -gt 0 ] || { echo "usage: failover.sh HOST:PORT ..." >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { echo "failover: $*" >&2; }

random() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

# call SECONDS AGENT METHOD: the request comes in and the answer goes out as JSON. The agent's reflection tells the types.
call() {
    "${GRPCURL:-grpcurl}" -cacert "$HOLDFAST_CA" -cert "$HOLDFAST_CERT" -key "$HOLDFAST_KEY" \
        -connect-timeout 2 -max-time "$1" -d @ "$2" "holdfast.v1.$3"
}

decide() { jq -L "$here" "$@"; }

# each SECONDS METHOD FILTER: asks all members at once; FILTER makes the request of a member. Answers: $work/METHOD.*
each() {
    seconds=$1 method=$2 filter=$3
    while read -r member; do
        printf '%s' "$member" | decide -c --arg request "$(random)" --argjson known "$known" --argjson attempt "$attempt" \
            --argjson rule "$rule" "{target: {requestId: \$request, cluster, node, incarnation, term: \$known}} + ($filter)" \
            > "$work/request"
        agent=$(printf '%s' "$member" | jq -r .agent) name=$(printf '%s' "$member" | jq -r .member)
        answer="$work/${method##*/}.$name"
        request=$(cat "$work/request")
        (printf '%s' "$request" | call "$seconds" "$agent" "$method" > "$answer" 2> "$answer.err" || rm "$answer") &
    done < "$work/members"
    wait
}

# answers METHOD: those that there are, as one array, each with the name of its member.
answers() {
    for answer in "$work/$1".*; do
        case $answer in *.err) continue ;; esac
        [ ! -e "$answer" ] || jq -c --arg member "${answer#"$work/$1."}" '{member: $member} + .' "$answer"
    done | jq -cs .
}

refuse() {
    say "$1"
    sed -n 's/^  Message: /failover: said: /p' "$work"/*.err >&2
    exit 3
}

# Who is there, which rule is the newest, and which term nobody has promised yet.
for agent in "$@"; do
    (echo '{}' | call 5 "$agent" NodeService/GetStatus 2> "$work/$agent.err" \
        | jq -c --arg agent "$agent" '.view + {agent: $agent}' > "$work/$agent.status") &
done
wait
cat "$work"/*.status > "$work/statuses"
jq -c '.volume.mounted.identity.incarnation as $incarnation | select($incarnation)
    | {agent, cluster, node, incarnation: $incarnation, member: "\(.node).\($incarnation)"}' "$work/statuses" > "$work/members"
[ -s "$work/members" ] || refuse "no agent answers that has a volume"
rule=$(decide -cs 'import "failover" as f; f::newest_rule // empty' "$work/statuses")
[ -n "$rule" ] || refuse "no agent that answers knows of a rule"
term=$(decide -s 'import "failover" as f; f::next_term' "$work/statuses")
attempt=$(jq -cn --argjson term "$term" --arg id "$(random)" '{term: $term, id: $id}')
known=$(printf '%s' "$rule" | jq .id.term)
say "newest rule: $(printf '%s' "$rule" | jq -c '[.id.term, .id.version]'), primary $(printf '%s' "$rule" | jq -r .primary)"

# Votes. A recruit stops the acks of a primary that may be healthy: nobody is recruited before enough members miss it too.
each 3 MemberService/AskVote '{primary: $rule.primary}'
missing=$(answers AskVote | jq -c '[.[] | select(.vote == "VOTE_MISSES_PRIMARY") | .member]')
too_few=$(printf '%s' "$rule" | decide -r --argjson missing "$missing" 'import "failover" as f; f::too_few($missing)')
[ -z "$too_few" ] || refuse "$too_few"

# Recruits, everybody who answers: those promise the term, stop receiving, and report how far their logs go.
say "recruiting for term $term"
known=$term
each 20 MemberService/Recruit '{attempt: $attempt}'
answers Recruit | jq -c '[.[].report]' > "$work/reports"

# U and E under both rules that may be in force, and who is the most advanced. The member computes this again.
decide -c --argjson attempt "$attempt" 'import "failover" as f; f::certificate($attempt)' "$work/reports" \
    > "$work/certificate" 2> "$work/certificate.err" || refuse "nobody may be promoted: $(cat "$work/certificate.err")"
chosen=$(jq -r .chosen "$work/certificate")
say "promoting $chosen at $(jq -r .position "$work/certificate"); not recruited: $(jq -c .absent "$work/certificate")"

# The one candidate of the term. A call whose answer is lost may be repeated.
jq -c --arg chosen "$chosen" 'select(.member == $chosen)' "$work/members" > "$work/candidate"
there=$(jq -r .agent "$work/candidate")
jq -c --arg request "$(random)" --argjson term "$term" --slurpfile certificate "$work/certificate" \
    '{target: {requestId: $request, cluster, node, incarnation, term: $term}, certificate: $certificate[0]}' \
    "$work/candidate" > "$work/promote"
call 30 "$there" MemberService/Promote < "$work/promote" > "$work/promoted" \
    || call 30 "$there" MemberService/Promote < "$work/promote" > "$work/promoted"
rule=$(jq -c .rule "$work/promoted")

# The others look at once whom to follow; they would find out by themselves. Their acks open the gate.
each 5 MemberService/Follow '{rule: $rule, attempt: $attempt}'
waited=0
until echo '{}' | call 5 "$there" NodeService/GetStatus 2> "$work/gate.err" \
    | jq -e --argjson term "$term" '.view.gate.open.term == $term' > "$work/gate"; do
    waited=$((waited + 1))
    [ "$waited" -lt 120 ] || { say "$chosen has begun term $term, and too few follow: its gate opens once they do"; exit 1; }
    sleep 0.5
done
say "$chosen serves in term $term"
cat "$work/certificate"
