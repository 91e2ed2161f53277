# Drops, one every few milliseconds, until it is killed: at a port without a listener, and in a rule of the firewall.
while sleep 0.02; do
    echo x > /dev/udp/127.0.0.1/9
    echo x > /dev/udp/127.0.0.1/8100
done 2> /dev/null
