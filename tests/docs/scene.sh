# What the commands of the documentation are about: namespaces, interfaces, a firewall, and drops in them. It is run in a
# network and mount namespace that end with the test.
set -eu
mkdir -p /run/netns
mount -t tmpfs tmpfs /run/netns
ip link set lo up
ip link add eth0 type veth peer name vb
ip link set eth0 up
ip link set vb up
ip addr add 192.168.2.120/24 dev eth0
for name in web client demo; do
    ip netns add "$name"
    ip -n "$name" link set lo up
done
cat > rules <<'RULES'
table inet filter {
    chain input {
        type filter hook input priority 0; policy accept;
        udp dport 8100 drop
    }
}
RULES
nft -f rules
ip netns exec web nft -f rules
