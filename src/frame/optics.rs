//! Ground resolution of a camera that looks straight down.

/// How wide a camera sees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lens {
    /// By focal length and sensor, both in millimetres.
    Sensor {
        /// Focal length; of the lens itself, not its equivalent on film, if the width is the sensor's own.
        focal_length: f64,
        /// Width of what the image shows of the sensor.
        sensor_width: f64,
    },
    /// By the angle that the image's width spans, in degrees.
    FieldOfView(f64),
}

impl Lens {
    /// Of what a user may say of it; none if that is nothing or not enough.
    pub fn of(
        focal_length: Option<f64>,
        sensor_width: Option<f64>,
        field_of_view: Option<f64>,
    ) -> Option<Self> {
        let sensor = focal_length.zip(sensor_width);
        let sensor = sensor.map(|(focal_length, sensor_width)| Self::Sensor {
            focal_length,
            sensor_width,
        });
        sensor.or(field_of_view.map(Self::FieldOfView))
    }

    /// Width in metres of the ground that an image shows which was taken straight down from `altitude` metres
    /// above it, by a pinhole: triangles with the pinhole as their tip are similar.
    pub fn swath(self, altitude: f64) -> f64 {
        match self {
            Self::Sensor {
                focal_length,
                sensor_width,
            } => altitude * sensor_width / focal_length,
            Self::FieldOfView(degrees) => 2.0 * altitude * (degrees.to_radians() / 2.0).tan(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Centimetres per pixel.
    fn resolution(lens: Lens, altitude: f64, width: u32) -> f64 {
        100.0 * lens.swath(altitude) / f64::from(width)
    }

    #[test]
    fn agrees_with_what_makers_publish() {
        let sensor = |focal_length, sensor_width| Lens::Sensor {
            focal_length,
            sensor_width,
        };
        // 120 * 13.2 / (8.8 * 5472) m. DJI gives H/36.5 cm for the Phantom 4 RTK, H in metres.
        let phantom = resolution(sensor(8.8, 13.2), 120.0, 5472);
        assert!((phantom - 3.289_473_68).abs() < 1e-8, "{phantom}");
        assert!((phantom - 120.0 / 36.5).abs() < 0.005 * phantom);
        // H/80 for the Zenmuse P1 with its lens of 35 mm.
        let zenmuse = resolution(sensor(35.0, 35.9), 60.0, 8192);
        assert!((zenmuse - 60.0 / 80.0).abs() < 0.005 * zenmuse, "{zenmuse}");
    }

    #[test]
    fn an_angle_spans_what_it_subtends() {
        // From 100 m, 90 degrees span 100 m to each side, 60 degrees 100 / sqrt(3) m.
        let wide = resolution(Lens::FieldOfView(90.0), 100.0, 1000);
        assert!((wide - 20.0).abs() < 1e-9, "{wide}");
        let narrow = resolution(Lens::FieldOfView(60.0), 100.0, 1000);
        assert!((narrow - 20.0 / 3f64.sqrt()).abs() < 1e-9, "{narrow}");
        // A sensor of 13.2 mm behind 8.8 mm sees 2 * atan(6.6 / 8.8), twice the angle of the triangle 3-4-5.
        let angle = 2.0 * (3f64 / 5.0).asin().to_degrees();
        let same = resolution(Lens::FieldOfView(angle), 120.0, 5472);
        assert!((same - 3.289_473_68).abs() < 1e-8, "{same}");
    }

    #[test]
    fn half_a_lens_is_none() {
        assert_eq!(Lens::of(Some(8.8), None, None), None);
        assert_eq!(Lens::of(None, Some(13.2), None), None);
        let of_angle = Lens::of(None, Some(13.2), Some(70.0));
        assert_eq!(of_angle, Some(Lens::FieldOfView(70.0)));
    }
}
