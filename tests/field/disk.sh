# The machine goes on from its disk, with the init of the system there.
loaded
mkdir /disk
mount -t ext4 -o ro /dev/vda /disk || fail "the disk cannot be mounted"
say MOUNTED
for folder in dev proc sys run; do mount --move /$folder /disk/$folder; done
exec switch_root /disk /sbin/init
