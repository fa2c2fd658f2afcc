# Opens files until it may not open more, says how many it has and why it stopped, and keeps them. Without modules: the machine
# has none. open(2) itself, for a handle of perl's would take more memory than the file.
$| = 1;
my ($path, $count) = ("/dev/null", 0);
$count++ while syscall(2, $path, 0) >= 0;
print "has $count files: $!\n";
sleep 1000 while 1;
