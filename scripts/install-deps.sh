#!/bin/sh
# Checks that the lab, the demo and the tests can run here: as root, with the
# programs they need, which it installs on Debian or Ubuntu. Does nothing, and
# asks no network, when all is there. Starts no service. With the argument nova
# it is what make test-nova needs as well, with bench what the benches compare with.
set -eu

if [ "$(id -u)" -ne 0 ]; then
    echo "install-deps: needs root: the lab, the demo and the tests make network namespaces and virtual switches" >&2
    echo "install-deps: run make with sudo (sudo env PATH=\"\$PATH\" make ... where root does not find go)" >&2
    exit 1
fi

PATH="$PATH:/usr/sbin:/sbin"
export PATH

# program  package
needed='
gcc          gcc
c-headers    libc6-dev
git          git
ca-bundle    ca-certificates
ovs-vswitchd openvswitch-switch
ovsdb-server openvswitch-switch
ip           iproute2
udhcpc       udhcpc
dhclient     isc-dhcp-client
iperf3       iperf3
tcpdump      tcpdump
ping         iputils-ping
arping       iputils-arping
ethtool      ethtool
curl         curl
jq           jq
ps           procps
traceroute   traceroute
dnsmasq      dnsmasq-base
postgres     postgresql
haproxy      haproxy
chromium     chromium
keystone-manage python3-keystone
openstack    python3-openstackclient
neutron      python3-neutronclient
rabbitmq     rabbitmq-server
'
[ "${1:-}" != nova ] || needed="$needed
python:nova      python3-nova
python:placement python3-placement
python:glance    python3-glance
python:fixtures  python3-fixtures
"

[ "${1:-}" != bench ] || needed="$needed
python:neutron   python3-neutron
"

have() {
    case $1 in
    # go test -race compiles C; go fetches modules by https.
    c-headers) echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1 ;;
    ca-bundle) [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -e /etc/pki/tls/certs/ca-bundle.crt ] ;;
    # Debian keeps the server's programs out of PATH, by version.
    rabbitmq) [ -e /usr/lib/rabbitmq/bin/rabbitmq-server ] ;;
    python:*) [ -d "/usr/lib/python3/dist-packages/${1#python:}" ] ;;
    postgres) command -v postgres >/dev/null || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

missing=$(echo "$needed" | while read -r program package; do
    [ -z "$program" ] || have "$program" || echo "$package"
done | sort -u | tr '\n' ' ')
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "install-deps: no apt-get here; please install by hand: $missing" >&2
    exit 1
fi

# invoke-rc.d starts no service while this says 101; a policy that is there
# already is the machine's own and stays.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi

echo "install-deps: installing $missing" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086
apt-get install -q -y --no-install-recommends $missing
