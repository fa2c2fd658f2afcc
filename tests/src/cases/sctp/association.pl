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

# An IPv6 address in its shortest form here: no zeros in front, none left out.
sub address6 {
    return join ":", map { sprintf "%x", $_ } unpack "n8", $_[0];
}

sub packed6 {
    my ($left, $right) = map { [split /:/] } split /::/, "$_[0] ", 2;
    return pack "n8", map { hex } @$left, (0) x (8 - @$left - @$right), @$right;
}

# One for IPv4, one for IPv6.
socket my $socket4, 2, 3, 132 or die $!;
socket my $socket6, 10, 3, 132 or die $!;

sub transmit {
    my ($address, @packet) = @_;
    my ($socket, $to) =
        $address =~ /:/ ? ($socket6, pack "Sx6a16x4", 10, packed6($address))
                        : ($socket4, pack "Sx2C4x8", 2, split /\./, $address);
    send $socket, packet(@packet), 0, $to or die $!;
}

# The next packet: the address it is from, ports, tag and kind; nothing if none comes for a second.
sub receive {
    my $ready = "";
    vec($ready, fileno $_, 1) = 1 for $socket4, $socket6;
    return unless select $ready, undef, undef, 1;
    my $is_ipv6 = vec $ready, fileno $socket6, 1;
    my $sender = recv $is_ipv6 ? $socket6 : $socket4, my $packet, 2048, 0;
    # IPv4's own header comes along.
    $packet = substr $packet, 4 * (ord($packet) & 15) if !$is_ipv6;
    my $address = $is_ipv6 ? address6(substr $sender, 8, 16) : join ".", unpack "x4C4", $sender;
    my ($from, $to, $tag, $sum, $kind) = unpack "nnNa4C", $packet;
    substr($packet, 8, 4) = "\0" x 4;
    die "the checksum is wrong\n" if $sum ne checksum($packet);
    return ($address, $from, $to, $tag, $kind);
}

my ($where, $port, $own) = @ARGV;
while (!defined $port) {
    my ($address, $from, $to, undef, $kind) = receive() or next;
    next if $to != $where || $kind != $init;
    print "asked by $address $from\n";
    transmit($address, $where, $from, $clients_tag, $init_ack, $servers_tag);
}
$where = address6(packed6($where)) if $where =~ /:/;
for (1 .. 60) {
    # A packet may get lost while neighbours are looked for.
    transmit($where, $own, $port, 0, $init, $clients_tag);
    while (my ($address, $from, $to, $tag, $kind) = receive()) {
        next if $from != $port || $to != $own || $kind != $init_ack;
        die "$address answers with the tag $tag\n" if $address ne $where || $tag != $clients_tag;
        print "answered by $address $from\n";
        exit;
    }
}
die "no answer\n";
