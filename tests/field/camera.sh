# The daemon on cameras of the kernel's test driver, which fail, are pulled out and come back under other numbers; on
# USB cameras; and on one of Motion JPEG, whose frames are damaged, change in size and cease.
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

# link NAME: to the device node of the USB camera that calls itself so.
link() {
    local node
    for node in /sys/class/video4linux/*; do
        if grep -q "^$1" $node/name && grep -qx 0 $node/index; then
            ln -sfn /dev/${node##*/} /dev/by-name/$1
            return
        fi
    done
    return 1
}

# camera NAME [WIDTH HEIGHT FORMAT]: a source.
camera() {
    echo "[[source]]"
    echo "name = \"$1\""
    echo "camera = \"/dev/by-name/$1\""
    [ -z "$2" ] || echo "size = [$2, $3]"
    [ -z "$4" ] || echo "format = \"$4\""
    echo "rate = 1"
}

# bars NAME WIDTH HEIGHT FORMAT: a source that sees vertical bars of full colours, without text.
bars() {
    camera "$@"
    echo "controls = { test_pattern = 1, osd_text_mode = 2 }"
}

# feed WIDTH HEIGHT FRAME...: gives the driver of Motion JPEG its frames, in turn, without end. It forgets the size when no
# one has the device open.
feed() {
    local frame
    exec 9>/dev/video40
    v4l2-ctl -d /dev/video40 --set-fmt-video-out width=$1,height=$2,pixelformat=MJPG || fail "no MJPEG"
    shift 2
    while true; do
        for frame; do
            # In one write: that is a frame.
            dd if=/frames/$frame bs=1M >&9 2>/dev/null || fail "a frame cannot be written"
            usleep 200000
        done
    done
}

control() { v4l2-ctl -d /dev/by-name/$1 -c $2=1 || fail "$1 has no $2"; }
status() { shipwatch status --runtime-folder /run/shipwatch; }
# about NAME: what the status says of a source.
about() { status | sed -n "/^source *$1 (/,/^[a-z]/ { /^source *$1 (/p; /^ /p }"; }
lines() { cat /data/detections.jsonl 2>/dev/null | grep -c "\"frame\":\"$1-"; }
more() { [ "$(lines $1)" -ge $2 ]; }
# goes_on NAME...: each gives some frames more.
goes_on() {
    local name goals goal
    for name; do goals="$goals $name:$(($(lines $name) + 3))"; done
    for goal in $goals; do patiently more ${goal%:*} ${goal#*:}; done
}
# How often a source was opened.
openings() { grep -c " $1: /dev/video" /data/log; }
opened() { [ "$(openings $1)" -ge $2 ]; }
logged() { grep -q "$1" /data/log; }
troubled() { about $1 | grep -q 'since '; }
untroubled() { ! troubled $1; }
skipped() { about $1 | grep -q '[1-9][0-9]* skipped'; }
# Frames that are cut off or of another size than the camera said are logged and counted, and do no harm to others.
skips() {
    patiently logged "$1: a JPEG that is cut off; skipped"
    patiently logged "$1: a JPEG of 160x88 pixels; skipped"
    patiently skipped $1
    goes_on $1
}
relinked() { link webcam && [ -e /dev/by-name/webcam ]; }
alive() { kill -0 $daemon || fail "the daemon ended"; }
step() { alive; say "$(cut -d . -f 1 /proc/uptime) s: $*"; }

shipwatch check >/tmp/check || fail "the self-test fails"
say "$(grep engine /tmp/check)"
[ "$(grep -o "int8 engine ($(cat /engine))" /tmp/check | wc -l)" = 2 ] || fail "not both networks are for $(cat /engine)"

load
plug 10
if [ -e /modules/v4l2loopback.ko ]; then
    mjpeg=mjpeg
    insmod /modules/v4l2loopback.ko video_nr=40
    ln -s /dev/video40 /dev/by-name/mjpeg
fi
patiently link webcam
patiently link padded
mkdir /data
{
    cat /config.toml
    bars yuyv 640 360 yuyv
    bars uyvy 320 180 uyvy
    bars nv12 320 180 nv12
    bars rgb24 320 180 rgb24
    bars grey 320 180 grey
    # What it is asked for it has not.
    bars odd 320 180 mjpeg
    camera output 320 180 yuyv
    camera webcam
    camera padded 320 176 yuyv
    [ -z "$mjpeg" ] || camera mjpeg 320 176 mjpeg
} >/tmp/config.toml
: >/data/log
shipwatch run --config /tmp/config.toml 2>/data/log & daemon=$!
tail -f /data/log &

if [ "$mjpeg" ]; then
    patiently logged 'mjpeg: .*does what feeds it run'
    # Of five frames a second one is taken, and after a bad one the next: in this order both kinds come up.
    feed 320 176 whole cut small cut & feeder=$!
fi
goes_on $cameras webcam padded $mjpeg
patiently logged 'odd: .*asked for MJPEG, which it does not give'
patiently troubled output
for name in $cameras webcam padded $mjpeg; do patiently untroubled $name; done
about output
# A check tries no camera that the daemon has.
shipwatch check --config /tmp/config.toml >/tmp/check 2>&1
grep 'webcam.*in use, as by the daemon' /tmp/check || fail "cameras in use: $(cat /tmp/check)"
step "all cameras give frames"

v4l2-ctl -d /dev/by-name/padded --get-fmt-video
v4l2-ctl -d /dev/by-name/padded --get-fmt-video | grep -q 'Bytes per Line *: 800$' || fail "the lines are not padded"
logged 'webcam: .*320x176 MJPEG' || fail "over USB it is not the largest size of JPEGs"
skips webcam
step "the largest JPEGs are taken, lines of more bytes than pixels have are read, damaged frames are skipped"

before=$(openings webcam)
say "PULL OUT"
patiently troubled webcam
goes_on padded
patiently logged 'webcam: .*no camera answers'
say "PLUG IN"
patiently relinked
patiently opened webcam $((before + 1))
goes_on webcam
patiently untroubled webcam
step "a USB camera is back that was pulled out"

# A machine that is behind drops such a buffer like others.
damaged() {
    control nv12 inject_v4l2_buf_flag_error
    sleep 1
    logged 'nv12: damaged, says the driver'
}
patiently damaged
goes_on nv12
step "a damaged buffer is skipped"

if [ "$mjpeg" ]; then
    skips mjpeg
    about mjpeg
    step "damaged frames of another driver are skipped"
    # It is found to be silent while the others fail.
    kill $feeder
fi

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

if [ "$mjpeg" ]; then
    patiently troubled mjpeg
    logged 'mjpeg: .*no usable frame for' || fail "silence is not told"
    about mjpeg
    feed 160 88 small & feeder=$!
    goes_on mjpeg
    patiently untroubled mjpeg
    logged 'mjpeg: .*160x88 MJPEG.*asked for 320x176' || fail "not the new size"
    step "one that was silent is back with frames of another size"
fi

# It is back as soon as no one has it open.
before=$(openings grey)
control grey disconnect
patiently logged 'grey: .*no camera answers there (No such device'
patiently opened grey $((before + 1))
goes_on yuyv
step "one is gone, the others go on"

echo vivid.0 >/sys/bus/platform/drivers/vivid/unbind
for name in $cameras; do patiently troubled $name; done
patiently rmmod vivid
status
step "all are gone"
plug 20
goes_on $cameras
for name in $cameras; do patiently untroubled $name; done
logged 'yuyv: /dev/video20 ' || fail "not the new number"
status
step "all are back under other numbers"

kill -TERM $daemon
wait $daemon || fail "the daemon ended with $?"
cat /data/detections.jsonl >/dev/ttyS2
