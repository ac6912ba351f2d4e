#!/bin/bash
# Makes the layers of the images that the suites pull, and images.json, which says what the registry makes of them.
# usage: images.sh BUSYBOX OUTPUT_FOLDER
set -euo pipefail
busybox=$(realpath "$1")
output=$(realpath -m "$2")
here=$(dirname "$(realpath "$0")")
scripts=$here/../../scripts

"$scripts/need-packages.sh" gcc libc6-dev libc-bin
work=$(mktemp -d)
trap 'rm -rf "$work" "$output.part"' EXIT
rm -rf "$output.part"
mkdir -p "$output.part" "$work/packages"
root() { mkdir -p "$work/$1" && echo "$work/$1"; }
pack() {
	tar --create --file="$output.part/$1.tar" --directory="$work/$1" --sort=name --mtime=@1735689600 \
		--owner=0 --group=0 --numeric-owner .
}
# with_libraries FILE ROOT: the libraries of a program of this machine.
with_libraries() {
	local library
	while read -r library; do
		mkdir -p "$2$(dirname "$library")"
		cp --dereference "$library" "$2$library"
	done < <(ldd "$1" | grep -o '/[^ ]*')
}

# Downloaded, not installed. Its libraries are those of this machine, which has to be the same Debian.
download() { (cd "$work/packages" && apt-get download -q -o APT::Sandbox::User=root nginx nginx-common); }
download || {
	echo "refreshing the package lists"
	apt-get update -q
	download
}
for package in "$work"/packages/*.deb; do
	dpkg-deb --extract "$package" "$work/debian"
done
"$scripts/need-packages.sh" libpcre2-8-0 libssl3 zlib1g

# Applets are hard links, as in the official image: a test masks /bin/ls, which must not hide all others.
r=$(root busybox)
mkdir -p "$r"/{bin,dev,etc,home,proc,root,run,sbin,sys,usr/bin,usr/sbin,var/spool/mail,var/www}
mkdir -m 1777 "$r/tmp" "$r/var/tmp"
cp "$busybox" "$r/bin/busybox"
while read -r applet; do
	case $applet in busybox | linuxrc) continue ;; esac
	ln "$r/bin/busybox" "$r/bin/$applet"
done < <("$busybox" --list)
cat >"$r/etc/passwd" <<'PASSWD'
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
PASSWD
cat >"$r/etc/group" <<'GROUP'
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
wheel:x:10:root
mail:x:8:
www-data:x:33:
operator:x:37:
users:x:100:
nogroup:x:65534:
GROUP
pack busybox

r=$(root pause)
gcc -std=gnu11 -Os -static -s -Wall -Wextra -Werror -o "$r/pause" "$here/pause.c"
pack pause

r=$(root nonewprivs)
gcc -std=gnu11 -Os -static -s -Wall -Wextra -Werror -o "$r/nonewprivs" "$here/nonewprivs.c"
chmod 4755 "$r/nonewprivs"
pack nonewprivs

# Tests look for nginx's process title and its pid file, so nothing else will do.
r=$(root nginx)
mkdir -p "$r"/{etc/nginx/conf.d,usr/sbin,usr/share/nginx/html,var/log/nginx,var/lib/nginx,var/run}
cp "$work/debian/usr/sbin/nginx" "$r/usr/sbin/"
with_libraries "$work/debian/usr/sbin/nginx" "$r"
echo '<h1>Welcome to nginx!</h1>' >"$r/usr/share/nginx/html/index.html"
cat >"$r/etc/nginx/nginx.conf" <<'NGINX'
user www-data;
worker_processes 1;
pid /var/run/nginx.pid;
events { worker_connections 64; }
http { access_log /dev/stdout; error_log /dev/stderr; include /etc/nginx/conf.d/*.conf; }
NGINX
echo 'server { listen 80; location / { root /usr/share/nginx/html; } }' >"$r/etc/nginx/conf.d/default.conf"
pack nginx

r=$(root nginx-12003)
mkdir -p "$r/etc/nginx/conf.d"
echo 'server { listen 12003; location / { root /usr/share/nginx/html; } }' >"$r/etc/nginx/conf.d/default.conf"
pack nginx-12003

r=$(root httpd)
mkdir -p "$r/htdocs"
echo '<h1>It works!</h1>' >"$r/htdocs/index.html"
pack httpd

r=$(root groups)
mkdir -p "$r/etc"
cp "$work"/busybox/etc/{passwd,group} "$r/etc/"
echo 'default-user:x:1000:1000:Linux User,,,:/home/default-user:/bin/sh' >>"$r/etc/passwd"
printf 'default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n' >>"$r/etc/group"
pack groups

# A shell, a set-uid program and a user 34.
r=$(root ownership)
mkdir -p "$r"/{bin,etc,usr/bin}
cp "$work"/busybox/etc/{passwd,group} "$r/etc/"
echo 'backup:x:34:34:backup:/var/backups:/bin/sh' >>"$r/etc/passwd"
echo 'backup:x:34:' >>"$r/etc/group"
cp /bin/bash "$r/bin/bash"
with_libraries /bin/bash "$r"
cp /bin/true "$r/usr/bin/passwd"
chmod 4755 "$r/usr/bin/passwd"
pack ownership

for i in 1 2 3; do
	r=$(root "volume-$i")
	echo "$i" >"$r/test_file$i"
	pack "volume-$i"
done
# What makes images different whose content does not matter.
for i in {1..12}; do
	r=$(root "mark-$i")
	echo "$i" >"$r/mark-$i"
	pack "mark-$i"
done

# Written, not copied with its time: make compares it with what it is made from.
cat "$here/images.json" >"$output.part/images.json"
rm -rf "$output"
mv "$output.part" "$output"
echo "made the layers of $(grep -c Refs "$output/images.json") images, $(du -sm "$output" | cut -f1) MiB"
