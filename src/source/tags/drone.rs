//! How high a drone flew and where it looked, from the XMP packet of its maker.

/// Furthest from straight down, in degrees, that a camera may look for a height to give a resolution: the ground
/// in the middle of the picture is then further away by 3.5 %.
const TILT: f64 = 15.0;

/// Metres above the place where the drone took off, if it was above it and the camera looked down.
///
/// DJI's names (Media File Metadata White Paper, part 2), as attributes or as elements. The altitude above sea
/// level, which GPS gives, is no height above a lake, and the receiver's may be wrong by tens of metres.
pub(super) fn height(packet: &[u8]) -> Option<f64> {
    let packet = String::from_utf8_lossy(packet);
    let pitch = number(&packet, "drone-dji:GimbalPitchDegree")?;
    let height = number(&packet, "drone-dji:RelativeAltitude")?;
    let down = (pitch + 90.0).abs() <= TILT;
    (down && height.is_finite() && height > 0.0).then_some(height)
}

fn number(packet: &str, name: &str) -> Option<f64> {
    packet.match_indices(name).find_map(|(at, _)| {
        let rest = packet[at + name.len()..].trim_start();
        let text = match rest.strip_prefix('>') {
            Some(element) => element.split('<').next()?,
            None => {
                let value = rest.strip_prefix('=')?.trim_start();
                let quote = value.chars().next().filter(|c| ['"', '\''].contains(c))?;
                value[1..].split(quote).next()?
            }
        };
        text.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a Zenmuse P1 writes it.
    const ATTRIBUTES: &str = r#"<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description
        drone-dji:AltitudeType="RtkAlt"
        drone-dji:AbsoluteAltitude="+14.687"
        drone-dji:RelativeAltitude="+39.839"
        drone-dji:GimbalPitchDegree="-89.90"
        drone-dji:FlightPitchDegree="-7.40"/></rdf:RDF></x:xmpmeta>"#;

    #[test]
    fn attributes_and_elements_are_read() {
        assert_eq!(height(ATTRIBUTES.as_bytes()), Some(39.839));
        let elements = "<drone-dji:GimbalPitchDegree> -90.0 </drone-dji:GimbalPitchDegree>\
            <drone-dji:AbsoluteAltitude>+150.00</drone-dji:AbsoluteAltitude>\
            <drone-dji:RelativeAltitude>+82.30</drone-dji:RelativeAltitude>";
        assert_eq!(height(elements.as_bytes()), Some(82.3));
        let single = ATTRIBUTES.replace('"', "'").replace('=', " = ");
        assert_eq!(height(single.as_bytes()), Some(39.839));
    }

    #[test]
    fn a_camera_that_looks_aside_tells_no_resolution() {
        let tilted = |pitch: &str| height(ATTRIBUTES.replace("-89.90", pitch).as_bytes());
        assert!(tilted("-75.00").is_some() && tilted("-105").is_some());
        assert!(tilted("-74.9").is_none() && tilted("+0.00").is_none());
        assert!(tilted("nan").is_none() && tilted("").is_none());
        let untold = ATTRIBUTES.replace("Gimbal", "Other");
        assert_eq!(height(untold.as_bytes()), None);
    }

    #[test]
    fn heights_that_cannot_be_are_left_out() {
        for bad in ["-3.00", "+0.00", "inf", "nan", "high", ""] {
            let packet = ATTRIBUTES.replace("+39.839", bad);
            assert_eq!(height(packet.as_bytes()), None, "{bad}");
        }
        // The altitude above the sea alone, and packets that end too early.
        let above_sea = ATTRIBUTES.replace("Relative", "Other");
        assert_eq!(height(above_sea.as_bytes()), None);
        for end in 0..ATTRIBUTES.len() {
            assert!([None, Some(39.839)].contains(&height(&ATTRIBUTES.as_bytes()[..end])));
        }
        assert_eq!(height(b"\xff\xfe drone-dji:RelativeAltitude"), None);
    }
}
