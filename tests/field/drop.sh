# Drops images from number $1 on, as any user may who is in the group of the service.
cd /var/lib/shipwatch/incoming
number=$1
while [ -e /opt/field/images/$number.png ]; do
    # A hidden file waits for its name.
    cp /opt/field/images/$number.png .$number.png && sync .$number.png && mv .$number.png $number.png && sync . ||
        { echo "FAILED: image $number cannot be dropped" && exit; }
    echo "DROPPED $number"
    number=$((number + 1))
done
echo "all images are dropped"
