# Brings the mirror of a repository up to date and makes a checkout of it. The token is the first line of the input.
#   $1 url   $2 what to check out: default, branch or commit   $3 which
# Ends with 10 if the server did not give it, 11 and 12 without the branch or commit, 13 for an empty one, 14 without git.
set -u
url=$1 what=$2 which=$3
read -r token || :
command -v git >/dev/null || exit 14

# The settings' credential helper reads from descriptor 9, once: nobody else is told, and no other server.
with_token() {
  if [ -n "$token" ]; then
    "$@" 9<<END
username=x-access-token
password=$token
END
  else
    "$@" 9</dev/null
  fi
}

head=$(with_token git ls-remote --symref -- "$url" HEAD) || exit 10
[ -n "$head" ] || exit 13
default=$(printf '%s\n' "$head" | sed -n 's|^ref: refs/heads/\(.*\)	HEAD$|\1|p')
tip=$(printf '%s\n' "$head" | sed -n 's|^\([0-9a-f]*\)	HEAD$|\1|p')

[ -d mirror ] || git init --quiet --bare --template= mirror || exit 1
# What this token does not show goes: the checkout gets what can be reached from what is left, and nothing else.
with_token git -C mirror fetch --quiet --force --prune --no-tags --no-write-fetch-head --no-recurse-submodules -- "$url" \
  '+refs/heads/*:refs/heads/*' '+refs/tags/*:refs/tags/*' || exit 10
[ -z "$default" ] || git -C mirror symbolic-ref HEAD "refs/heads/$default" || exit 1
if [ "$what" = branch ]; then
  git -C mirror rev-parse --quiet --verify "refs/heads/$which^{commit}" >/dev/null || exit 11
fi

git -c protocol.file.allow=always clone --quiet --no-local --no-checkout --template= --no-recurse-submodules \
  -- "$PWD/mirror" out || exit 1
git -C out remote set-url origin "$url" || exit 1
case $what in
  commit)
    if ! git -C out cat-file -e "$which^{commit}" 2>/dev/null; then
      # No branch leads to it: some servers give it all the same.
      with_token git -C out fetch --quiet --no-tags --no-write-fetch-head --no-recurse-submodules -- "$url" "$which" ||
        exit 12
    fi
    git -C out checkout --quiet --detach "$which" || exit 1 ;;
  branch)
    git -C out checkout --quiet -B "$which" --track "origin/$which" || exit 1 ;;
  *)
    if [ -n "$default" ]; then
      git -C out checkout --quiet -B "$default" --track "origin/$default" || exit 1
    else
      git -C out checkout --quiet --detach "$tip" || exit 1
    fi ;;
esac
