#!/bin/bash
# Runs a Debian image with systemd, a command with dumb-init, and one with a component and hooks of the host's operator
# on a private containerd, and checks what they do.
# All that it makes is in one temporary folder, and gone at the end. Needs root; builds and installs what is missing.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
root=$(realpath "$here/../..")
runtime=io.containerd.rich.v2
image=localhost/debian-bookworm:latest
prefix=rich-demo.
fifos=/run/containerd/fifo # where ctr keeps the streams of its containers

dir=     # the folder of this run
child=   # process group of the build
daemon=  # pid of containerd
web=     # pid of the ctr that runs the web server
shop=    # pid of the ctr that runs the container of (c)
client=  # pid of any other ctr
keep=    # of the parents of ctr's streams, those that were there before
execs=0  # number of ctr t exec so far
got=     # stdout of the last command, or its exit status if it failed without any
status=0 # exit status of the last command
results=()
failed=0

say() { printf '\n== %s (at %d s)\n' "$1" "$SECONDS"; }

# ---- waiting

# Waits until a command succeeds, for at most so many seconds, and prints a dot every other second.
await() {
	local limit=$((SECONDS + $1)) dotted=$SECONDS dots=''
	shift
	until "$@"; do
		((SECONDS < limit)) || break
		if ((SECONDS >= dotted + 2)); then
			printf .
			dots=yes dotted=$SECONDS
		fi
		sleep 0.2
	done
	[[ -z $dots ]] || echo
	"$@"
}
# Of a process, and of a process group, no matter whether it has been waited for.
ended() { ! grep -qs '^[0-9]* (.*) [^ZX]' "/proc/$1/stat"; }
group_ended() { ! grep -qs "^[0-9]* (.*) [^ZX] [0-9]* $1 " /proc/[0-9]*/stat; }

# ---- commands that are shown

# Prints a command as one would type it, a long one on several lines.
show() {
	local word line='+'
	for word; do
		[[ $word =~ ^[[:alnum:]_./:=@,%+-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
		if ((${#line} > 70)) && [[ $word == --* || $word == "$image" ]]; then
			printf '%s \\\n' "$line"
			line='   '
		fi
		line+=" $word"
	done
	printf '%s\n' "$line"
}

indent() { sed 's/^/    /'; }
# On a host with cgroup v1 every ctr says on stderr that this is deprecated.
quiet() { grep -v 'msg="DEPRECATION: ' || true; }

run() {
	show "$@"
	status=0
	# In a session of its own: a ctr that Ctrl-C ends would leave something.
	setsid "$@" </dev/null >"$dir/stdout" 2>"$dir/stderr" &
	client=$!
	wait "$client" || status=$?
	client=
	indent <"$dir/stdout"
	quiet <"$dir/stderr" | indent
	got=$(<"$dir/stdout")
	((status == 0)) || got=${got:-exit status $status}
}

# Runs a command as root in a container.
inside() {
	execs=$((execs + 1))
	run ctr t exec --exec-id "e$execs" --user root "$@"
}
# The same without a word, until it succeeds or the ctr that runs the container has ended.
succeeds() {
	local ctr=$1
	shift
	execs=$((execs + 1))
	ctr t exec --exec-id "e$execs" --user root "$@" >/dev/null 2>&1 || ended "$ctr"
}

# Some steps of a build say nothing for minutes.
build() {
	local said=$SECONDS
	show "$@"
	setsid "$@" </dev/null &
	child=$!
	until ended "$child"; do
		if ((SECONDS >= said + 15)); then
			echo "    ... $SECONDS s"
			said=$SECONDS
		fi
		sleep 0.2
	done
	wait "$child"
	child=
}

check() {
	local verdict=ok
	if [[ $2 != "$3" ]]; then
		verdict=FAILED
		failed=$((failed + 1))
	fi
	results+=("$(printf '%-40s %-32s %-32s %s' "$1" "$2" "${3:0:60}" "$verdict")")
}
# The line of $got that a pattern matches, or all of it.
found() { grep -m 1 -oE -e "$1" <<<"$got" || printf '%s' "${got//$'\n'/ }"; }

# ---- what belongs to a run, and its end

mounts_below() {
	local point
	while read -r _ _ _ _ point _; do
		point=$(printf '%b' "$point")
		[[ $point != "$1" && $point != "$1"/* ]] || printf '%s\n' "$point"
	done </proc/self/mountinfo | tac
}
cgroups_of() {
	local point
	while read -r _ _ _ _ point _; do
		[[ ! -d $point/$1 ]] || find "$point/$1" -depth -type d
	done < <(grep -E ' - cgroup2? ' /proc/self/mountinfo)
}
# Processes in the cgroups of a run, and the programs of containerd that name its folder.
processes_of() {
	local file args
	for file in $(grep -lsE "/$2(/|$)" /proc/[0-9]*/cgroup; grep -lsaF "$1/" /proc/[0-9]*/cmdline); do
		if [[ $file == */cmdline ]]; then
			{ mapfile -d '' -t args <"$file"; } 2>/dev/null || continue
			[[ ${args[0]-} =~ (^|/)(containerd|containerd-shim-rich-v2|ctr)$ ]] || continue
		fi
		file=${file#/proc/}
		echo "${file%/*}"
	done
}
mark() { [[ ! -r /proc/$1/stat ]] || echo "$1 $(sed 's/.*) //' "/proc/$1/stat" | cut -d ' ' -f 20)"; } # pid and start time

# Removes what is left of the run in a folder.
sweep() {
	local name=${1##*/} pid point cgroup pids n
	for ((n = 0; n < 100; n++)); do
		mapfile -t pids < <(processes_of "$1" "$name")
		((${#pids[@]})) || break
		for pid in "${pids[@]}"; do kill -KILL "$pid" 2>/dev/null; done
		sleep 0.1
	done
	mounts_below "$1" | while read -r point; do umount "$point" 2>/dev/null || umount --lazy "$point"; done
	cgroups_of "$name" | while read -r cgroup; do rmdir "$cgroup"; done
	[[ -n $(mounts_below "$1") ]] || rm -rf "$1"
}
sweep_dead() {
	local folder pid
	for folder in "${TMPDIR:-/tmp}/$prefix"*; do
		[[ -f $folder/owner ]] || continue
		read -r pid _ <"$folder/owner"
		if [[ $(mark "$pid") != "$(<"$folder/owner")" ]]; then
			echo "removing $folder of a run that was killed"
			sweep "$folder"
		fi
	done
}

# Kills what runs in containers, and tells whether every ctr has then removed its container and ended.
ctrs_ended() {
	local task
	for task in $(ctr t ls -q 2>/dev/null); do ctr t kill -s SIGKILL "$task" 2>/dev/null; done
	local ctr
	for ctr in $web $shop $client; do ended "$ctr" || return 1; done
}

# Ends everything: in order, then by force.
finish() {
	local parent
	trap '' INT TERM HUP PIPE
	set +e
	if [[ $child ]]; then
		kill -TERM -- "-$child" 2>/dev/null
		await 60 group_ended "$child"
		child=
	fi
	[[ $dir ]] || return 0
	if [[ $daemon ]] && ! ended "$daemon"; then
		await 20 ctrs_ended
		kill -TERM "$daemon"
		await 10 ended "$daemon"
	fi
	[[ -z $client ]] || kill -KILL "$client" 2>/dev/null
	unset TMPDIR
	sweep "$dir"
	for parent in "$fifos" "${fifos%/*}"; do
		[[ " $keep " == *" $parent "* ]] || rmdir "$parent" 2>/dev/null
	done
	dir=
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM
trap 'echo "demo.sh: line $LINENO failed" >&2' ERR

# ---- the demo

if ((EUID != 0)); then
	echo "demo.sh: run it as root" >&2
	exit 1
fi
sweep_dead
cd "$root"

say "build what is missing: the shim, the launcher, dumb-init, containerd, a Debian image, an agent"
build env -u MAKEFLAGS -u MAKELEVEL make -j2 --no-print-directory build build/tools/containerd build/images/debian-bookworm.tar build/components

say "start a private containerd"
for folder in "$fifos" "${fifos%/*}"; do [[ ! -d $folder ]] || keep+=" $folder"; done
dir=$(mktemp -d "${TMPDIR:-/tmp}/${prefix}XXXXXX")
chmod 0755 "$dir"
# An overlay cannot lie on another one, so where there is one (in some containers) the run is held in memory.
[[ $(stat -f -c %T "$dir") != overlayfs ]] || mount -t tmpfs tmpfs "$dir"
mark $$ >"$dir/owner"
mkdir "$dir/tmp" "$dir/data"
install -D -m 0644 -t "$dir/www" "$here/www/welcome.html"
install -m 0644 -t "$dir" "$here/httpd.conf" "$here/cron.d"
install -D -m 0755 -t "$dir/hooks" "$here/hooks/prestart" "$here/hooks/poststop"
etc=$dir/etc # lies over /etc in the mount namespace of containerd and the shims
components=containerd/rich/components.d
install -d "$etc/$components"
sed "s#ROOT#$root#" "$here/node-exporter.toml" >"$etc/$components/node-exporter.toml"
sed "s#DIR#$dir#" "$here/containerd.toml" >"$dir/containerd.toml"
export PATH=$root/build/bin:$root/build/tools:$PATH TMPDIR=$dir/tmp
export CONTAINERD_ADDRESS=$dir/containerd.sock CONTAINERD_NAMESPACE=${dir##*/}
cat <<SETTINGS
+ export PATH=$root/build/bin:$root/build/tools:\$PATH
+ export CONTAINERD_ADDRESS=$CONTAINERD_ADDRESS CONTAINERD_NAMESPACE=$CONTAINERD_NAMESPACE
SETTINGS
show containerd --config "$dir/containerd.toml"
# shellcheck disable=SC2016 # the parameters are those of the inner shell
setsid unshare --mount sh -ec 'mount -t overlay -o "ro,lowerdir=$1:/etc" overlay /etc; shift; exec "$@"' sh "$etc" \
	containerd --config "$dir/containerd.toml" </dev/null >"$dir/containerd.log" 2>&1 &
daemon=$!
answers() { ctr version >/dev/null 2>&1 || ended "$daemon"; }
await 60 answers
if ended "$daemon"; then
	echo "demo.sh: containerd ended:" >&2
	tail -n 20 "$dir/containerd.log" >&2
	exit 1
fi
run ctr images import build/images/debian-bookworm.tar

say "(a) systemd: a web server as the user www-data"
# www-data is not root, so that systemd, which runs as root, has to be asked for.
# shellcheck disable=SC2016 # the variables are those of the container
command=(ctr run --rm --runtime "$runtime"
	--annotation rich.containerd.io/init=systemd
	--hostname web --user www-data --cwd /srv/www --env GREETING=hello --env PORT=8080
	--mount "type=bind,src=$dir/www,dst=/srv/www,options=rbind:ro"
	--mount "type=bind,src=$dir/httpd.conf,dst=/etc/httpd.conf,options=rbind:ro"
	--mount "type=bind,src=$dir/cron.d,dst=/etc/cron.d/demo,options=rbind:ro"
	"$image" web
	sh -c 'echo "$GREETING from $(id -un) in $PWD"; exec busybox httpd -f -v -p "$PORT" -h .')
show "${command[@]}"
started=${EPOCHREALTIME/./}
setsid "${command[@]}" </dev/null >"$dir/web.stdout" 2>"$dir/web.stderr" &
web=$!
speaks() { [[ -s $dir/web.stdout ]] || ended "$web"; }
await 60 speaks || true
echo "    the first line of the command came $(((${EPOCHREALTIME/./} - started) / 1000)) ms after ctr was called"

inside web systemctl is-system-running --wait
check "systemd has started everything" running "$got"
inside web systemctl list-units --failed --plain --no-legend
check "failed units" none "${got:-none}"
inside web ps -e -o pid,user:12,args --forest
check "pid 1" systemd "$(awk '$1 == 1 { sub(".*/", "", $3); print $3 }' <<<"$got")"
inside web ps -C busybox -o user=,unit=
check "user and unit of the command" "www-data rich-app.service" "$(awk '{ print $1, $2 }' <<<"$got")"
inside web systemctl is-active cron rsyslog ssh
check "cron, rsyslog and ssh" "active active active" "${got//$'\n'/ }"
inside web busybox wget -q -O - http://127.0.0.1:8080/
check "HTTP answer, as the config mount says" "$(<"$here/www/welcome.html")" "$got"

say "(b) dumb-init: a command that ends with 42"
run ctr run --rm --runtime "$runtime" --annotation rich.containerd.io/init=dumb-init "$image" code sh -c 'cat /proc/1/comm; exit 42'
check "pid 1 of (b)" dumb-init "$got"
check "exit status of (b)" 42 "$status"

say "(c) an operator's component, hooks and a cron job around a command that crashes"
run cat "$etc/$components/node-exporter.toml"
run cat "$dir/hooks/prestart" "$dir/hooks/poststop"
command=(ctr run --rm --runtime "$runtime"
	--annotation rich.containerd.io/components=node-exporter
	--annotation rich.containerd.io/prestart=/srv/hooks/prestart
	--annotation rich.containerd.io/poststop=/srv/hooks/poststop
	--mount "type=bind,src=$dir/hooks,dst=/srv/hooks,options=rbind:ro"
	--mount "type=bind,src=$dir/data,dst=/srv/data,options=rbind:rw"
	--mount "type=bind,src=$dir/cron.d,dst=/etc/cron.d/demo,options=rbind:ro"
	"$image" shop
	sh -c 'cat /srv/data/configuration; until [ -e /srv/data/crash ]; do sleep 0.2; done; exit 3')
show "${command[@]}"
setsid "${command[@]}" </dev/null >"$dir/shop.stdout" 2>"$dir/shop.stderr" &
shop=$!
begins() { [[ -s $dir/shop.stdout ]] || ended "$shop"; }
await 60 begins || true
cat "$dir/shop.stdout" <(quiet <"$dir/shop.stderr") | indent
check "prestart ran before the command" "configured for shop by root" "$(<"$dir/shop.stdout")"
# It listened before the command began: nothing is waited for.
inside shop sh -c 'busybox wget -q -O - http://127.0.0.1:9100/metrics | grep "^node_memory_MemTotal_bytes "'
check "the component answers" "node_memory_MemTotal_bytes" "$(found '^node_memory_MemTotal_bytes')"
inside shop ps -C prometheus-node -o user=,unit=
check "user of the component" nobody "$(awk '{ print $1 }' <<<"$got")"
check "unit of the component" rich-component-node-exporter "$(awk '{ sub("[.]service", "", $2); print $2 }' <<<"$got")"

say "(a), (c): cron runs a job at the start of each minute"
job='demo: a cron job ran as root'
logged() { succeeds "$web" web grep -q "$job" /var/log/syslog && succeeds "$shop" shop grep -q "$job" /var/log/syslog; }
due=$((EPOCHSECONDS / 60 * 60 + 61))
begun() { ((EPOCHSECONDS >= due)) || ended "$web"; }
if ! logged; then
	echo "    the next one begins in $((due - 1 - EPOCHSECONDS)) s"
	await 70 begun || true
	await 30 logged || true
fi
for container in web shop; do
	inside "$container" grep -m 1 demo: /var/log/syslog
	check "a cron job's line in the syslog of $container" "$job" "$(found "$job")"
done

say "(c) crash: the command ends with 3, and poststop knows"
run touch "$dir/data/crash"
await 30 ended "$shop" || true
status="still running"
if ended "$shop"; then
	status=0
	wait "$shop" || status=$?
fi
check "exit status of (c)" 3 "$status"
run cat "$dir/data/report"
check "poststop ran with the exit code" "code 3, reason exit" "$got"
run grep "the command crashed.*container=shop" "$dir/containerd.log"
check "the crash, in the log of the shim" "code=3" "$(found 'code=3')"

say "(a) stop: the command gets SIGTERM, then systemd halts"
run ctr t kill -s SIGTERM web
started=${EPOCHREALTIME/./}
await 30 ended "$web" || true
took=$(((${EPOCHREALTIME/./} - started) / 1000))
status="still running"
if ended "$web"; then
	status=0
	wait "$web" || status=$?
fi
echo "    ctr ended with $status after $took ms"
check "exit status of (a): 128 + SIGTERM" 143 "$status"
check "stopped before the limit of 10 s" yes "$( ((took < 10000)) && echo yes || echo "$took ms")"

echo "    what the container wrote, as ctr printed it:"
cat "$dir/web.stdout" <(quiet <"$dir/web.stderr") | tee "$dir/web.log" | indent
got=$(<"$dir/web.log")
check "environment, user and folder, in its log" "hello from www-data in /srv/www" "$(head -n 1 "$dir/web.log")"
check "the request, in its log" "response:200" "$(found 'response:200$')"
check "lines of systemd in its log" 0 "$(grep -ciE 'systemd|started|reached target' "$dir/web.log" || true)"

say "end containerd and remove everything"
((failed == 0)) || { echo "containerd's log ends with:"; tail -n 30 "$dir/containerd.log"; }
folder=$dir
finish
left=$(processes_of "$folder" "${folder##*/}"; mounts_below "$folder"; cgroups_of "${folder##*/}"; ls -d "$folder" 2>/dev/null || true)
check "left behind" nothing "${left:-nothing}"

say "result"
printf '%-40s %-32s %-32s %s\n' what expected got ''
printf '%s\n' "${results[@]}"
((failed == 0)) || { echo "$failed failed"; exit 1; }
