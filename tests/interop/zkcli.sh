#!/usr/bin/env bash
# Apache's zkCli (org.apache.zookeeper.ZooKeeperMain 3.9.5) against a server: zkcli.sh HOST:PORT
# Runs scripted sessions and looks for the expected lines in order. Prints a line per check, ends with
# `N passed, N failed`. Every session is bounded in time. Expects install.sh to have run.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$here/.work
address=${1:?usage: zkcli.sh HOST:PORT}
base=/zkcli-$$
passed=0
failed=0

# cli FLAGS...: one zkCli session on standard input.
cli() {
    timeout 60 java -Dorg.slf4j.simpleLogger.defaultLogLevel=off -Djline.terminal=dumb -cp "$work/jars/*" \
        org.apache.zookeeper.ZooKeeperMain -server "$address" 2>&1
}

# check NAME COMMANDS PATTERN...: the session's output has lines that match the patterns (grep -E), in this order.
check() {
    local name=$1 commands=$2 output rest pattern line
    shift 2
    # "quit" closes the session and with it the program.
    output=$(printf '%s\nquit\n' "$commands" | cli)
    rest=$output
    for pattern in "$@"; do
        line=$(grep -nE -m1 -- "$pattern" <<<"$rest" | cut -d: -f1)
        if [ -z "$line" ]; then
            echo "FAIL $name: no line matches '$pattern' in its place; the output was:"
            printf '%s\n' "$output" | sed 's/^/     | /'
            failed=$((failed + 1))
            return
        fi
        rest=$(tail -n +"$((line + 1))" <<<"$rest")
    done
    echo "ok   $name"
    passed=$((passed + 1))
}

check "create, get, ls" "create $base hello
get $base
create $base/a 1
create $base/b 2
ls $base" "^Created $base\$" '^hello$' "^Created $base/a\$" '^\[a, b\]$'

check "ls -s: children and Stat" "ls -s $base" '^\[a, b\]$|^\[a, b\]cZxid' 'mZxid = 0x' 'cversion = 2' 'numChildren = 2'
check "ls -R: the whole tree" "ls -R $base" "^$base\$" "^$base/a\$" "^$base/b\$"
check "get -s: data and Stat" "get -s $base" '^hello$' 'dataVersion = 0' 'ephemeralOwner = 0x0' 'dataLength = 5'
check "stat: of a node, of a missing one" "stat $base
stat $base/none" 'numChildren = 2' "Node does not exist: $base/none"

check "set: with Stat, wrong and right version" "set -s $base one
set -v 7 $base two
set -v 1 $base three
get $base" 'dataVersion = 1' 'version No is not valid' '^three$'

check "create -s, -e, -s -e" "create -s $base/s- x
create -e $base/e x
stat $base/e
create -s -e $base/se- x" "^Created $base/s-0000000002\$" "^Created $base/e\$" 'ephemeralOwner = 0x[1-9a-f]' "^Created $base/se-0000000004\$"
check "ephemerals are gone after quit" "ls $base" '^\[a, b, s-0000000002\]$'
check "create: node exists, parent missing" "create $base x
create $base/no/no x" "Node already exists: $base" "Node does not exist: $base/no/no"

check "get -w: the event is printed before the next output" "get -w $base
set $base four" '^three$' 'WATCHER::' "type:NodeDataChanged path:$base( |\$)"
check "ls -w: ChildrenChanged" "ls -w $base
create $base/c x" '^\[a, b, s-0000000002\]$' "type:NodeChildrenChanged path:$base( |\$)"
check "stat -w: NodeDeleted" "stat -w $base/c
delete $base/c" 'numChildren = 0' "type:NodeDeleted path:$base/c( |\$)"
check "addWatch: recursive by default" "addWatch $base
create $base/deep x
create $base/deep/er x
deleteall $base/deep" "type:NodeCreated path:$base/deep( |\$)" "type:NodeCreated path:$base/deep/er( |\$)" \
    "type:NodeDeleted path:$base/deep/er( |\$)" "type:NodeDeleted path:$base/deep( |\$)"
check "removewatches: told once, then NoWatcher" "get -w $base
removewatches $base -d
removewatches $base -d" '^four$' "type:DataWatchRemoved path:$base( |\$)" 'No such watcher|KeeperErrorCode = No such watcher|NoWatcher'

check "delete: wrong version, not empty, then deleteall" "delete -v 9 $base/a
create $base/tree x
create $base/tree/1 x
create $base/tree/2 x
delete $base/tree
deleteall $base/tree
ls $base" 'version No is not valid' "Node not empty: $base/tree" '^\[a, b, s-0000000002\]$'
check "sync" "sync $base" 'Sync is OK'

check "getAcl of an open node, -s with Stat" "getAcl -s $base" "'world,'anyone" ': cdrwa' 'aclVersion = 0'
check "addauth and setAcl: digest" "addauth digest alice:secret
create $base/mine secret-data
setAcl -s $base/mine auth::cdrwa
getAcl $base/mine
get $base/mine" 'aclVersion = 1' "'digest,'alice:" ': cdrwa' '^secret-data$'
check "without addauth: not permitted" "get $base/mine
set $base/mine x
setAcl $base/mine world:anyone:cdrwa" "Insufficient permission : $base/mine" "Insufficient permission : $base/mine" \
    "Insufficient permission : $base/mine"
check "setAcl: an invalid ACL" "setAcl $base/a nosuch:x:cdrwa" "Acl is not valid : $base/a"
check "deleteall of everything made here" "addauth digest alice:secret
deleteall $base
stat $base" "Node does not exist: $base"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
