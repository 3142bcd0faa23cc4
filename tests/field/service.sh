# Runs on a machine with systemd, as root. With `part=install` on the kernel's command line it installs the package as it
# comes and tries the service; then there are writer, camera and reader until the power is cut; with `part=finish` the
# service does what is left, and the machine is shut down.
. /opt/field/words
stty -F /dev/ttyS1 raw -echo
stty -F /dev/ttyS2 raw -echo
state=/var/lib/shipwatch
config=/etc/shipwatch/config.toml

# What the console then shows is for who reads it.
fail() {
    journalctl --boot --unit=shipwatch --no-pager
    shipwatch status
    say "FAILED: $*"
}
# must COMMAND...: it succeeds now.
must() { "$@" || fail "not so: $*"; }
not() { ! "$@"; }
is() { [ "$(systemctl show --property=$1 --value shipwatch)" = "$2" ]; }
running() { [ "$(systemctl is-system-running)" = running ]; }
lines() { grep -c "\"frame\":\"$1" $state/detections.jsonl; }
more() { [ "$(lines "$1")" -ge $2 ]; }
goes_on() { patiently more $1 $(($(lines $1) + 3)); }
troubled() { shipwatch status | grep -A 3 "^source *$1 (" | grep -q 'since '; }
step() { say "$(cut -d . -f 1 /proc/uptime) s: $*"; }

# Each byte of the detections as soon as there is one to read.
reader() {
    while true; do
        cat
        sleep 0.05
    done <$state/detections.jsonl >/dev/ttyS2
}

install() {
    patiently running
    must dpkg --install /opt/field/shipwatch.deb </dev/null
    must is ActiveState active
    must is Type notify
    must is UnitFileState enabled
    must is User shipwatch
    step "installed, and the service is up"

    useradd --groups shipwatch pi
    must runuser --user pi -- cp /opt/field/algiers-roads.png $state/incoming/
    patiently more algiers-roads.png 1
    step "as it comes it finds what another user drops"

    must test -c /dev/v4l/by-path/platform-vivid.0-video-index0
    cp /opt/field/service.toml $config
    must runuser --user shipwatch -- shipwatch check --config $config
    # These know what is bright, and no ships, and take less time.
    sed -i '1i models = "/opt/field/models"' $config
    systemctl restart shipwatch
    goes_on deck-
    must not troubled deck
    must is DropInPaths ""
    must is DevicePolicy closed
    must [ -z "$(dpkg --verify shipwatch | grep -v $config)" ]
    step "the camera gives frames"

    # The devices are closed to root, too, in the service's control group.
    within() { sh -c 'echo $$ >/sys/fs/cgroup/system.slice/shipwatch.service/cgroup.procs && exec "$@"' - "$@"; }
    must head -c 1 /dev/vda >/tmp/byte
    must not within head -c 1 /dev/vda
    must within dd if=/dev/video0 of=/dev/null count=0
    step "no other device can be opened"

    before=$(systemctl show --property=MainPID --value shipwatch)
    echo vivid.0 >/sys/bus/platform/drivers/vivid/unbind
    patiently troubled deck
    must not test -e /dev/video0
    step "the camera is gone"
    echo vivid.0 >/sys/bus/platform/drivers/vivid/bind
    goes_on deck-
    patiently not troubled deck
    must is MainPID $before
    step "and is back"
    shipwatch status | while read -r line; do say "| $line"; done

    must systemctl stop shipwatch
    must is Result success
}

echo $(option writeback) >/proc/sys/vm/dirty_writeback_centisecs
echo $(option writeback) >/proc/sys/vm/dirty_expire_centisecs
case $(option part) in
    install) install ;;
    cut)
        # What is told to the host as dropped is on the disk, under its name.
        runuser --user pi -- sh /opt/field/drop.sh $(option first) >/dev/ttyS1 &
        patiently is ActiveState active
        say UP
        reader &
        goes_on deck-
        patiently running
        say STEADY
        while is NRestarts 0 && is ActiveState active; do sleep 2; done
        fail "the service ended by itself"
        ;;
    finish)
        patiently is ActiveState active
        patiently running
        reader & reader=$!
        empty() { [ -z "$(ls $state/incoming)" ]; }
        patiently empty
        goes_on deck-
        must is NRestarts 0
        must systemctl stop shipwatch
        must is Result success
        sleep 1
        kill $reader
        ;;
esac
say ENDED
systemctl poweroff
