# The daemon on cameras of the kernel's test driver, which fail, are pulled out and come back under other numbers.
load() { for file in $(grep -v vivid /modules/order); do insmod /modules/$file; done; }
cameras="yuyv uyvy nv12 rgb24 grey odd"

# plug FIRST: six cameras and one device that is none, from /dev/videoFIRST on, with links such as udev makes.
plug() {
    insmod /modules/vivid.ko n_devs=7 node_types=0x1,0x1,0x1,0x1,0x1,0x1,0x100 multiplanar=1,1,1,1,1,1,1 \
        vid_cap_nr=$(seq -s , $1 $(($1 + 5))) vid_out_nr=-1,-1,-1,-1,-1,-1,$(($1 + 6))
    local name number=$1
    mkdir -p /dev/by-name
    for name in $cameras output; do
        ln -sfn /dev/video$number /dev/by-name/$name
        number=$((number + 1))
    done
}

# camera NAME WIDTH HEIGHT FORMAT: a source that sees vertical bars.
camera() {
    echo "[[source]]"
    echo "name = \"$1\""
    echo "camera = \"/dev/by-name/$1\""
    echo "size = [$2, $3]"
    echo "format = \"$4\""
    echo "rate = 1"
    # Bars of full colours, without text.
    echo "controls = { test_pattern = 1, osd_text_mode = 2 }"
}

control() { v4l2-ctl -d /dev/by-name/$1 -c $2=1 || fail "$1 has no $2"; }
status() { shipwatch status --runtime-folder /run/shipwatch; }
# about NAME: what the status says of a source.
about() { status | sed -n "/^source *$1 (/,/^[a-z]/ { /^source *$1 (/p; /^ /p }"; }
lines() { cat /data/detections.jsonl 2>/dev/null | grep -c "\"frame\":\"$1-"; }
more() { [ "$(lines $1)" -ge $2 ]; }
goes_on() { patiently more $1 $(($(lines $1) + 3)); }
# How often a source was opened.
openings() { grep -c " $1: /dev/video" /data/log; }
opened() { [ "$(openings $1)" -ge $2 ]; }
logged() { grep -q "$1" /data/log; }
troubled() { about $1 | grep -q 'since '; }
untroubled() { ! troubled $1; }
alive() { kill -0 $daemon || fail "the daemon ended"; }
step() { alive; say "$(cut -d . -f 1 /proc/uptime) s: $*"; }

load
plug 3
mkdir /data
{
    cat /config.toml
    camera yuyv 640 360 yuyv
    camera uyvy 320 180 uyvy
    camera nv12 320 180 nv12
    camera rgb24 320 180 rgb24
    camera grey 320 180 grey
    # What it is asked for it has not.
    camera odd 320 180 mjpeg
    camera output 320 180 yuyv
} >/tmp/config.toml
: >/data/log
shipwatch run --config /tmp/config.toml 2>/data/log & daemon=$!
tail -f /data/log &

for name in $cameras; do goes_on $name; done
patiently logged 'odd: .*asked for MJPEG, which it does not give'
patiently troubled output
for name in $cameras; do patiently untroubled $name; done
about output
step "all cameras give frames"

# A machine that is behind drops such a buffer like others.
damaged() {
    control nv12 inject_v4l2_buf_flag_error
    sleep 1
    logged 'nv12: damaged, says the driver'
}
patiently damaged
goes_on nv12
step "a damaged buffer is skipped"

v4l2-ctl -d /dev/by-name/uyvy -c percentage_of_dropped_buffers=60
dropped() { about uyvy | grep -q '[1-9][0-9]* dropped'; }
patiently dropped
v4l2-ctl -d /dev/by-name/uyvy -c percentage_of_dropped_buffers=0
goes_on uyvy
step "dropped buffers are counted"

before=$(openings yuyv)
control yuyv inject_fatal_streaming_error
patiently opened yuyv $((before + 1))
goes_on yuyv
before=$(openings rgb24)
control rgb24 inject_vidioc_streamon_error
control rgb24 inject_fatal_streaming_error
patiently opened rgb24 $((before + 1))
goes_on rgb24
before=$(openings grey)
control grey inject_vidioc_qbuf_error
goes_on grey
step "what fails is opened anew"

control grey disconnect
patiently troubled grey
goes_on yuyv
step "one is gone, the others go on"

echo vivid.0 >/sys/bus/platform/drivers/vivid/unbind
for name in $cameras; do patiently troubled $name; done
patiently rmmod vivid
status
step "all are gone"
plug 20
for name in $cameras; do
    goes_on $name
    patiently untroubled $name
done
logged 'yuyv: /dev/video20 ' || fail "not the new number"
status
step "all are back under other numbers"

kill -TERM $daemon
wait $daemon || fail "the daemon ended with $?"
cat /data/detections.jsonl >/dev/ttyS2
