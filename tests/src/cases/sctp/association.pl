# The first two packets of an SCTP association (RFC 9260), by raw sockets, for the machine's kernel has no SCTP of its own and
# passes them on all the same. With a port: answers each who asks there, and says who it was. With an address and two ports:
# asks the first from the second until an answer comes, for a minute. Without modules: the machine has none.
$| = 1;
my ($init, $init_ack) = (1, 2);
my ($clients_tag, $servers_tag) = (0x0c11e417, 0x5e57e5e5);

# CRC32c, as appendix A has it.
sub checksum {
    my $sum = 0xffffffff;
    for my $byte (unpack "C*", $_[0]) {
        $sum ^= $byte;
        $sum = ($sum >> 1) ^ ($sum & 1 ? 0x82f63b78 : 0) for 1 .. 8;
    }
    return pack "V", $sum ^ 0xffffffff;
}

# A header and one chunk: its own tag, how much it takes, streams in both directions, the first number.
sub packet {
    my ($from, $to, $tag, $kind, $own_tag) = @_;
    my $packet = pack "nnNx4CCnNNnnN", $from, $to, $tag, $kind, 0, 20, $own_tag, 65536, 1, 1, 1;
    substr($packet, 8, 4) = checksum($packet);
    return $packet;
}

socket my $socket, 2, 3, 132 or die $!;

sub transmit {
    my ($address, @packet) = @_;
    send $socket, packet(@packet), 0, pack("Snx12", 2, 0) | pack("x4C4x8", split /\./, $address) or die $!;
}

# The next packet: the address it is from, ports, tag and kind; nothing if none comes for a second.
sub receive {
    my $ready = "";
    vec($ready, fileno $socket, 1) = 1;
    return unless select $ready, undef, undef, 1;
    my $sender = recv $socket, my $packet, 2048, 0;
    # IPv4's own header comes along.
    $packet = substr $packet, 4 * (ord($packet) & 15);
    my ($from, $to, $tag, $sum, $kind) = unpack "nnNa4C", $packet;
    substr($packet, 8, 4) = "\0" x 4;
    die "the checksum is wrong\n" if $sum ne checksum($packet);
    return (join(".", unpack "x4C4", $sender), $from, $to, $tag, $kind);
}

my ($where, $port, $own) = @ARGV;
while (!defined $port) {
    my ($address, $from, $to, undef, $kind) = receive() or next;
    next if $to != $where || $kind != $init;
    print "asked by $address:$from\n";
    transmit($address, $where, $from, $clients_tag, $init_ack, $servers_tag);
}
for (1 .. 60) {
    # A packet may get lost while neighbours are looked for.
    transmit($where, $own, $port, 0, $init, $clients_tag);
    my ($address, $from, $to, $tag, $kind) = receive() or next;
    next if $from != $port || $to != $own || $kind != $init_ack;
    die "$address answers with the tag $tag\n" if $address ne $where || $tag != $clients_tag;
    print "answered by $address:$from\n";
    exit;
}
die "no answer\n";
