# The daemon on a disk, and a writer that gives it images, until the power is cut. With `last` on the kernel's command
# line there is no writer, and the machine is shut down when all is done.
loaded
mount -t ext4 /dev/vda /data || fail "the disk cannot be mounted"
echo "$(option writeback)" >/proc/sys/vm/dirty_writeback_centisecs
echo "$(option writeback)" >/proc/sys/vm/dirty_expire_centisecs
mkdir -p /data/in /data/staging /data/out

# What is told to the host as dropped is on the disk, under its name.
drop() {
    cp /images/$1.png /data/staging/ && sync /data/staging/$1.png &&
        mv /data/staging/$1.png /data/in/ && sync /data/in /data/staging && say "DROPPED $1"
}
writer() {
    number=$1
    while [ -e /images/$number.png ]; do
        drop $number || fail "image $number cannot be written"
        number=$((number + 1))
    done
    say "all images are written"
}
# Each byte of the detections as soon as there is one to read.
reader() {
    while true; do
        cat
        usleep 20000
    done </data/out/detections.jsonl >/dev/ttyS2
}

sed -i "s/FINISHED/$(option finished)/" /config.toml
first=$(option first)
[ -z "$first" ] || writer $first &
if [ "$(option unsynced)" ]; then
    LD_PRELOAD=libeatmydata.so shipwatch run --config /config.toml & daemon=$!
else
    shipwatch run --config /config.toml & daemon=$!
fi
up() { shipwatch status --runtime-folder /run/shipwatch; }
ended() { ! kill -0 $daemon; }
up_or_ended() { up || ended; }
patiently up_or_ended
# As it does where its own files are not as it left them.
ended && say "LOST: the daemon does not start"
say UP
reader & reader=$!
if [ -z "$first" ]; then
    empty() { [ -z "$(ls /data/in)" ]; }
    patiently empty
    kill -TERM $daemon
    wait $daemon && say STOPPED || fail "the daemon ended with $?"
    sleep 1
    kill $reader
    patiently umount /data
else
    wait $daemon
    fail "the daemon ended by itself with $?"
fi
