#!/usr/bin/env bash
# The demo: three virtual hypervisors, two tenants with the same addresses, a
# VLAN provider network with a physical host, routers to the outside with SNAT
# and floating IPs. It checks what it shows and stays up.
#   scripts/demo.sh up | down
set -uo pipefail
cd "$(dirname "$0")/.."

state=/run/planck-demo
api=http://127.0.0.1:9696
lab() { bin/planck-lab --lab demo "$@"; }
q() { bin/quantum "$@"; }
export LC_ALL=C.UTF-8 # so that ${#text} counts characters
failed=0
rows=()

serve() {
    setsid bin/planck serve --config-file "$state/planck.conf" --state-dir "$state/db" >>"$state/planck.log" 2>&1 </dev/null &
    echo $! >"$state/pid"
    disown
}

die() {
    echo "demo: $*" >&2
    exit 1
}

down() {
    [ -x bin/planck-lab ] && lab down >/dev/null 2>&1
    if [ -f "$state/pid" ]; then
        kill "$(cat "$state/pid")" 2>/dev/null
        for _ in $(seq 50); do
            kill -0 "$(cat "$state/pid")" 2>/dev/null || break
            sleep 0.1
        done
    fi
    rm -rf "$state"
}

# line WHAT VERDICT FIGURE: printf pads by bytes, so the padding is made by hand.
line() {
    printf '  %s%*s %-7s %s\n' "$1" $((60 - ${#1})) '' "$2" "$3"
}

# row WHAT VERDICT FIGURE: one line of the table.
row() {
    rows+=("$1|$2|$3")
    [ "$2" = ok ] || failed=1
    line "$1" "$2" "$3"
}

# reach VM ADDRESS WHAT [yes|no] [ping options]: pings and notes loss and time.
reach() {
    local vm=$1 dst=$2 what=$3 expect=${4:-yes} out got rtt
    shift $(($# < 4 ? $# : 4))
    out=$(lab exec "$vm" ping -n -q -c 5 -i 0.2 -W 1 "$@" "$dst" 2>&1)
    got=$(sed -n 's/.* \([0-9]*\) received.*/\1/p' <<<"$out")
    rtt=$(sed -n 's#.*= [0-9.]*/\([0-9.]*\)/.*#\1 ms#p' <<<"$out")
    if [ "$expect" = yes ]; then
        [ "${got:-0}" -ge 4 ] && row "$what" ok "${got} of 5 answered, ${rtt}" || row "$what" FAILED "${got:-0} of 5 answered"
    else
        [ "${got:-0}" = 0 ] && row "$what" ok "0 of 5 answered" || row "$what" FAILED "${got} of 5 answered"
    fi
}

# reaches VM ADDRESS WHAT: the same after the next hop was found, which costs the first packet.
reaches() {
    lab exec "$1" ping -n -q -c 1 -w 3 "$2" >/dev/null 2>&1
    reach "$1" "$2" "$3"
}

# shows WHAT TEXT COMMAND: a command prints a text.
shows() {
    local what=$1 text=$2 out
    shift 2
    out=$("$@" 2>&1)
    if grep -q "$text" <<<"$out"; then
        row "$what" ok "$(grep -m 1 "$text" <<<"$out" | tr -s ' ' | cut -c1-40)"
    else
        row "$what" FAILED "$(tail -n 1 <<<"$out")"
    fi
}

# refused WHAT TEXT COMMAND: a command fails and says why.
refused() {
    local what=$1 text=$2 out
    shift 2
    if out=$("$@" 2>&1); then
        row "$what" FAILED "it was done"
    elif grep -q "$text" <<<"$out"; then
        row "$what" ok "$(grep -o "$text" <<<"$out" | head -n 1 | cut -c1-40)"
    else
        row "$what" FAILED "$(tail -n 1 <<<"$out")"
    fi
}

# floating_ip_of PORT: the id of its floating IP.
floating_ip_of() { q floatingip-list -f value -c id -- --port_id="$1"; }

# fetch VM URL WHAT TEXT: curl gets a page with a text.
fetch() { shows "$3" "$4" lab exec "$1" curl -fsS -m 5 "$2"; }

# tcp CLIENT SERVER ADDRESS WHAT: 16 MiB by iperf3.
tcp() {
    local out
    lab exec "$2" timeout 20 iperf3 -s -1 >/dev/null 2>&1 &
    sleep 1
    if out=$(lab exec "$1" timeout 20 iperf3 -c "$3" -n 16M -f m 2>&1); then
        row "$4" ok "$(awk '/receiver/ {print $7, $8}' <<<"$out")"
    else
        row "$4" FAILED "$(tail -n 1 <<<"$out")"
    fi
    wait $!
}

# serve_page VM TEXT: a web server of one page, until the VM goes.
serve_page() {
    mkdir -p "$state/www-$1"
    echo "$2" >"$state/www-$1/index.html"
    lab exec "$1" setsid busybox httpd -f -p 80 -h "$state/www-$1" </dev/null >/dev/null 2>&1 &
    disown
}

# boot HOST VM NETWORK TENANT [OPTION…]: a port, a VM, its lease.
boot() {
    local host=$1 vm=$2 net=$3 tenant=$4 id begin wired lease addr
    shift 4
    id=$(q port-create "$net" --name "$vm" --tenant_id "$tenant" "$@" -f value -c id) || die "port for $vm"
    begin=$(date +%s%N)
    lab vm "$host" "$vm" --port "$id" --api "$api" >/dev/null || die "VM $vm"
    for _ in $(seq 200); do
        [ "$(q port-show "$id" -f value -c status)" = ACTIVE ] && break
        sleep 0.05
    done
    wired=$((($(date +%s%N) - begin) / 1000000))
    begin=$(date +%s%N)
    lab dhcp "$vm" >"$state/$vm.lease" 2>&1
    lease=$((($(date +%s%N) - begin) / 1000000))
    addr=$(lab exec "$vm" ip -4 -o addr show dev eth0 | awk '{print $4}')
    eval "${vm}=${addr%/*}; ${vm}_port=$id"
    if [ -n "$addr" ]; then
        row "$vm on $host ($tenant): DHCP by udhcpc" ok "$addr in $lease ms, wired in $wired ms"
    else
        row "$vm on $host ($tenant): DHCP by udhcpc" FAILED "$(tail -n 1 "$state/$vm.lease")"
    fi
}

up() {
    [ "$(id -u)" = 0 ] || die "must run as root: it makes network namespaces and virtual switches"
    down
    mkdir -p "$state"
    if (exec 3<>/dev/tcp/127.0.0.1/9696) 2>/dev/null; then
        die "something listens on 127.0.0.1:9696 already: is another controller running?"
    fi

    echo "== planck serve, three hypervisors"
    cat >"$state/planck.conf" <<CONF
[OVS]
tenant_network_type = gre
network_vlan_ranges = physnet1:100:199
CONF
    serve
    for _ in $(seq 100); do
        curl -fs "$api/readyz" >/dev/null && break
        sleep 0.1
    done
    curl -fs "$api/readyz" >/dev/null || die "the controller is not ready: $(tail -n 3 "$state/planck.log")"
    local begin
    begin=$(date +%s%N)
    lab up 3 --controller tcp:controller:6640 >/dev/null || die "the lab does not come up"
    row "three hypervisors with their own Open vSwitch" ok "$((($(date +%s%N) - begin) / 1000000)) ms"

    echo "== two tenants, both with 10.0.0.0/24"
    for tenant in blue red; do
        q net-create "net-$tenant" --tenant_id "$tenant" >/dev/null || die "net-create"
        q subnet-create "net-$tenant" 10.0.0.0/24 --name "subnet-$tenant" --tenant_id "$tenant" --dns_nameservers list=true 9.9.9.9 >/dev/null || die "subnet-create"
    done
    boot host1 blue1 net-blue blue
    boot host2 blue2 net-blue blue
    boot host3 blue3 net-blue blue
    boot host1 red1 net-red red
    boot host2 red2 net-red red

    echo "== within a tenant, across hosts, through GRE"
    reach blue1 "$blue2" "blue1 (host1) → blue2 (host2)"
    reach blue1 "$blue3" "blue1 (host1) → blue3 (host3)"
    reach red1 "$red2" "red1 (host1) → red2 (host2)"

    echo "== not across tenants"
    reach red1 "$blue3" "red1 → blue3's address, which red does not have" no
    local arp
    arp=$(lab exec red1 ip neigh show "$red2" | grep -o '\([0-9a-f]\{2\}:\)\{5\}[0-9a-f]\{2\}')
    [ "$arp" = "$(q port-show "$red2_port" -f value -c mac_address)" ] &&
        row "red1 knows $red2 as red2, not as blue2" ok "$arp" || row "red1 knows $red2 as red2, not as blue2" FAILED "$arp"

    echo "== a VLAN of the data centre, with a physical host in it"
    q net-create ops --tenant_id ops --provider:network_type vlan --provider:physical_network physnet1 --provider:segmentation_id 101 >/dev/null || die "provider network"
    q subnet-create ops 192.168.57.0/24 --tenant_id ops --no-gateway >/dev/null || die "provider subnet"
    lab phys server --vlan 101 --ip 192.168.57.250/24 >/dev/null || die "physical host"
    lab phys stranger --vlan 102 --ip 192.168.57.251/24 >/dev/null || die "physical host"
    boot host3 ops1 ops ops
    reach ops1 192.168.57.250 "ops1 (host3) → physical host in VLAN 101"
    reach ops1 192.168.57.251 "ops1 → physical host in VLAN 102" no

    echo "== routers, the outside and floating IPs, as in the guide"
    q net-create public --router:external=True >/dev/null || die "external network"
    q subnet-create public 203.0.113.0/24 --gateway 203.0.113.1 --enable_dhcp False \
        --allocation-pool start=203.0.113.10,end=203.0.113.99 >/dev/null || die "external subnet"
    q router-create router1 --tenant_id blue >/dev/null || die "router-create"
    q router-interface-add router1 subnet-blue >/dev/null || die "router-interface-add"
    q router-gateway-set router1 public >/dev/null || die "router-gateway-set"
    q security-group-create web --tenant_id blue >/dev/null || die "security-group-create"
    q security-group-rule-create --direction ingress --ethertype IPv4 --tenant_id blue web >/dev/null || die "security-group-rule-create"
    boot host1 web1 net-blue blue --security-group web
    boot host2 web2 net-blue blue --security-group web
    serve_page ext "this is the Internet"
    serve_page web1 "this is web1"
    reaches web1 203.0.113.1 "web1 (host1) → ext, SNAT"
    reaches web2 198.51.100.1 "web2 (host2) → behind ext, SNAT"
    fetch web2 http://203.0.113.1/ "web2: curl ext" "the Internet"
    tcp web2 ext 203.0.113.1 "web2 → ext: iperf3 through GRE and SNAT"
    shows "web1: traceroute shows its router first" "^ 1  10.0.0.1 " lab exec web1 traceroute -n -q 1 -w 2 198.51.100.1
    local fip1 fip2
    fip1=$(q floatingip-create --port_id "$web1_port" public -f value -c floating_ip_address) || die "floatingip-create"
    fip2=$(q floatingip-create --port_id "$web2_port" public -f value -c floating_ip_address) || die "floatingip-create"
    reaches ext "$fip1" "ext → web1's floating IP $fip1"
    fetch ext "http://$fip1/" "ext: curl web1's floating IP" "web1"
    tcp ext web1 "$fip1" "ext → web1's floating IP: iperf3"
    reaches web2 "$fip1" "web2 → web1 by floating IPs, across hosts"
    reaches web1 "$fip1" "web1 → its own floating IP"
    shows "ext: traceroute shows the router, then the floating IP" "^ 2  $fip1 " lab exec ext traceroute -n -q 1 -w 2 "$fip1"

    echo "== and all the way back"
    q floatingip-disassociate "$(floating_ip_of "$web2_port")" >/dev/null || die "floatingip-disassociate"
    reach ext "$fip2" "ext → $fip2, disassociated" no
    refused "router-gateway-clear while a floating IP needs it" "is required by one or more floating IPs" q router-gateway-clear router1
    refused "router-delete while it has an interface" "has ports still attached" q router-delete router1
    q floatingip-delete "$(floating_ip_of "$web1_port")" >/dev/null || die "floatingip-delete"
    reach ext "$fip1" "ext → $fip1, deleted" no
    reaches web1 203.0.113.1 "web1 → ext, SNAT again"
    q router-gateway-clear router1 >/dev/null || die "router-gateway-clear"
    reach web1 203.0.113.1 "web1 → ext, without a gateway" no
    q router-interface-delete router1 subnet-blue >/dev/null || die "router-interface-delete"
    q router-delete router1 >/dev/null || die "router-delete"
    [ -z "$(q router-list -f value -c name)" ] && row "router-list after router-delete" ok "no router is left" ||
        row "router-list after router-delete" FAILED "$(q router-list -f value -c name)"
    lab exec web1 ip neigh flush dev eth0
    reach web1 10.0.0.1 "web1 → its router, which is gone" no
    q router-create router1 --tenant_id blue >/dev/null && q router-interface-add router1 subnet-blue >/dev/null &&
        q router-gateway-set router1 public >/dev/null || die "router1 once more"
    fip1=$(q floatingip-create --port_id "$web1_port" public -f value -c floating_ip_address) || die "floatingip-create"
    reaches ext "$fip1" "ext → web1 by $fip1, with router1 made anew"

    echo "== forged addresses go nowhere"
    lab exec blue1 ip addr add 10.0.0.200/24 dev eth0
    reach blue1 "$blue2" "blue1 with a forged IP" no -I 10.0.0.200
    lab exec blue1 ip addr del 10.0.0.200/24 dev eth0
    local before after
    before=$(lab exec blue2 ip neigh show "$blue3" | grep -o 'lladdr [^ ]*')
    lab exec blue1 ip addr add "$blue3/24" dev eth0
    lab exec blue1 arping -q -U -c 3 -w 2 -I eth0 "$blue3" >/dev/null 2>&1
    lab exec blue1 ip addr del "$blue3/24" dev eth0
    after=$(lab exec blue2 ip neigh show "$blue3" | grep -o 'lladdr [^ ]*')
    [ "$before" = "$after" ] && row "blue1 claims blue3's address by ARP" ok "blue2 did not believe it" ||
        row "blue1 claims blue3's address by ARP" FAILED "$before became $after"
    local mac
    mac=$(q port-show "$blue1_port" -f value -c mac_address)
    lab exec blue1 ip link set eth0 address 02:00:00:00:66:66
    reach blue1 "$blue2" "blue1 with a forged MAC" no
    lab exec blue1 ip link set eth0 address "$mac"
    reach blue1 "$blue2" "blue1 with its own MAC again"

    echo "== the controller is killed and started again under a ping, 10 ms apart"
    lab exec blue1 ping -n -q -i 0.01 -c 600 "$blue2" >"$state/ping" 2>&1 &
    local pinger=$!
    sleep 1
    kill -9 "$(cat "$state/pid")"
    sleep 1
    serve
    wait $pinger
    local lost mods
    lost=$(sed -n 's/^\([0-9]*\) packets transmitted, \([0-9]*\) received.*/\1 \2/p' "$state/ping" | awk '{print $1 - $2}')
    mods=$(curl -fs "$api/metrics" | awk '/^planck_flow_mods_total/ {n += $2} END {print n + 0}')
    [ "$lost" = 0 ] && row "packets lost while the controller was away" ok "0 of 600" || row "packets lost while the controller was away" FAILED "${lost:-?} of 600"
    [ "$mods" = 0 ] && row "FLOW_MODs sent by the new controller" ok 0 || row "FLOW_MODs sent by the new controller" FAILED "$mods"

    echo
    echo "What was verified:"
    line claim verdict measured
    local r what verdict figure
    for r in "${rows[@]}"; do
        IFS='|' read -r what verdict figure <<<"$r"
        line "$what" "$verdict" "$figure"
    done
    cat <<NEXT

The lab stays up. Try:
  bin/quantum net-list
  bin/quantum port-list -- --network_id \$(bin/quantum net-show net-blue -f value -c id)
  bin/planck hosts
  bin/planck flows host1 br-int --port $blue1_port
  bin/planck-lab --lab demo ps
  bin/planck-lab --lab demo exec blue1 ping $blue2
  bin/planck-lab --lab demo exec ext curl http://$fip1/
  bin/planck-lab --lab demo exec web2 traceroute -n 198.51.100.1
  bin/quantum floatingip-list
  bin/quantum port-update $blue2_port --admin_state_up=False
  tail -f $state/planck.log
  make demo-down
NEXT
    return $failed
}

case "${1:-}" in
up) up ;;
down) down ;;
*) die "usage: scripts/demo.sh up|down" ;;
esac
