//! Makes a small picture of a large one, within limits of memory. Pure, and slow: never on an async thread.

use std::io::Cursor;

use image::{
    DynamicImage, ImageDecoder as _, ImageError, ImageFormat, ImageReader, Limits, codecs::jpeg::JpegEncoder,
    metadata::Orientation,
};

/// JPEG quality of thumbnails, of 100.
const QUALITY: u8 = 80;
/// The most bytes that a decoder may ask for, per pixel that it may decode: four channels of 16 bits.
const BYTES_PER_PIXEL: u64 = 8;

/// How a picture is fitted into a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Fills the size and cuts off what is left over.
    Crop,
    /// Stays whole and fits into the size.
    Scale,
}

/// The small picture.
#[derive(Debug)]
pub(super) struct Resized {
    pub bytes: Vec<u8>,
    pub content_type: &'static str,
}

/// Why there is no small picture.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResizeError {
    #[error("the content is no picture of a kind that is known")]
    NotAPicture,
    #[error("the picture has more than {max} pixels")]
    TooManyPixels { max: u64 },
    #[error("the picture is damaged")]
    Damaged(#[source] ImageError),
}

/// Fits the (first) picture in `bytes` into `size`, never enlarging it. Opaque pictures become JPEG, others PNG.
pub(super) fn resize(
    bytes: &[u8],
    (width, height): (u32, u32),
    method: Method,
    max_pixels: u64,
) -> Result<Resized, ResizeError> {
    let picture = decode(bytes, max_pixels)?;
    let small = match method {
        Method::Scale => scale(picture, width, height),
        Method::Crop => crop(picture, width, height),
    };
    encode(&small)
}

fn decode(bytes: &[u8], max_pixels: u64) -> Result<DynamicImage, ResizeError> {
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|_| ResizeError::NotAPicture)?;
    // What is compiled in, and nothing that another crate may add to the build.
    let known = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP];
    if !reader.format().is_some_and(|format| known.contains(&format)) {
        return Err(ResizeError::NotAPicture);
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(max_pixels.saturating_mul(BYTES_PER_PIXEL));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| classify(error, max_pixels))?;
    // Before a single pixel is decoded.
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(ResizeError::TooManyPixels { max: max_pixels });
    }
    // A damaged orientation is no reason to show nothing.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| classify(error, max_pixels))?;
    if picture.width() == 0 || picture.height() == 0 {
        return Err(ResizeError::NotAPicture);
    }
    picture.apply_orientation(orientation);
    Ok(picture)
}

fn classify(error: ImageError, max_pixels: u64) -> ResizeError {
    match error {
        ImageError::Limits(_) => ResizeError::TooManyPixels { max: max_pixels },
        other => ResizeError::Damaged(other),
    }
}

fn scale(picture: DynamicImage, width: u32, height: u32) -> DynamicImage {
    if picture.width() <= width && picture.height() <= height {
        return picture;
    }
    picture.thumbnail(width, height)
}

fn crop(picture: DynamicImage, width: u32, height: u32) -> DynamicImage {
    let (across, down) =
        (f64::from(width) / f64::from(picture.width()), f64::from(height) / f64::from(picture.height()));
    let factor = across.max(down);
    if factor >= 1.0 {
        // Too small to fill the size: the same proportions, as large as it is.
        let (width, height) = (rounded(f64::from(width) / factor), rounded(f64::from(height) / factor));
        return cut_out_middle(&picture, width, height);
    }
    let filled = picture.thumbnail_exact(
        rounded(f64::from(picture.width()) * factor).max(width),
        rounded(f64::from(picture.height()) * factor).max(height),
    );
    cut_out_middle(&filled, width, height)
}

fn cut_out_middle(picture: &DynamicImage, width: u32, height: u32) -> DynamicImage {
    let (width, height) = (width.min(picture.width()), height.min(picture.height()));
    picture.crop_imm((picture.width() - width) / 2, (picture.height() - height) / 2, width, height)
}

fn rounded(length: f64) -> u32 {
    // `as` saturates, and lengths are those of pictures that were decoded.
    (length.round() as u32).max(1)
}

fn encode(picture: &DynamicImage) -> Result<Resized, ResizeError> {
    let mut bytes = Vec::new();
    // GIF and WebP have a channel for transparency whether they use it or not.
    let transparent = Some(picture.to_rgba8()).filter(|picture| picture.pixels().any(|pixel| pixel[3] != u8::MAX));
    let content_type = match transparent {
        Some(picture) => {
            let mut file = Cursor::new(&mut bytes);
            picture.write_to(&mut file, ImageFormat::Png).map_err(ResizeError::Damaged)?;
            "image/png"
        }
        None => {
            let encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
            picture.to_rgb8().write_with_encoder(encoder).map_err(ResizeError::Damaged)?;
            "image/jpeg"
        }
    };
    Ok(Resized { bytes, content_type })
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, RgbImage, RgbaImage};

    use super::*;

    const MAX: u64 = 1_000_000;

    fn png(picture: impl Into<DynamicImage>) -> Vec<u8> {
        let mut bytes = Vec::new();
        picture.into().write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
        bytes
    }

    fn dimensions(resized: &Resized) -> (u32, u32) {
        let picture = image::load_from_memory(&resized.bytes).unwrap();
        (picture.width(), picture.height())
    }

    #[test]
    fn a_picture_fits_and_is_never_enlarged() {
        for (from, size, method, to) in [
            ((800, 400), (320, 240), Method::Scale, (320, 160)),
            ((400, 800), (320, 240), Method::Scale, (120, 240)),
            ((20, 10), (320, 240), Method::Scale, (20, 10)),
            ((800, 400), (96, 96), Method::Crop, (96, 96)),
            ((50, 20), (96, 96), Method::Crop, (20, 20)),
            ((1, 1), (32, 32), Method::Crop, (1, 1)),
            ((1000, 1), (32, 32), Method::Crop, (1, 1)),
            ((1, 1000), (32, 32), Method::Scale, (1, 32)),
        ] {
            let resized = resize(&png(RgbImage::new(from.0, from.1)), size, method, MAX).unwrap();
            assert_eq!(dimensions(&resized), to, "{from:?} {size:?} {method:?}");
            assert_eq!(resized.content_type, "image/jpeg");
        }
        let transparent = resize(&png(RgbaImage::new(100, 100)), (32, 32), Method::Crop, MAX).unwrap();
        assert_eq!(transparent.content_type, "image/png");
        let grey = resize(&png(GrayImage::new(100, 100)), (32, 32), Method::Crop, MAX).unwrap();
        assert_eq!(dimensions(&grey), (32, 32));
    }

    #[test]
    fn every_format_of_the_table_is_read() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP] {
            let mut bytes = Vec::new();
            DynamicImage::from(RgbImage::new(64, 64)).write_to(&mut Cursor::new(&mut bytes), format).unwrap();
            assert!(resize(&bytes, (32, 32), Method::Scale, MAX).is_ok(), "{format:?}");
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_decoded() {
        // A PNG of a few bytes whose header claims 60,000 × 60,000 pixels.
        let mut bomb = png(GrayImage::new(1, 1));
        bomb[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
        bomb[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
        let checksum = crc32(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&checksum.to_be_bytes());
        assert!(matches!(resize(&bomb, (32, 32), Method::Scale, MAX), Err(ResizeError::TooManyPixels { max: MAX })));
    }

    #[test]
    fn a_cut_or_broken_picture_is_an_error_and_never_a_panic() {
        let noise: Vec<u8> = (0..64_u32 * 64 * 3).map(|byte| (byte.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let picture = DynamicImage::from(RgbImage::from_raw(64, 64, noise).unwrap());
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP] {
            let mut bytes = Vec::new();
            picture.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
            for length in (0..bytes.len()).step_by(97) {
                // Some formats show what there is; what matters is that there is an answer.
                let _ = resize(&bytes[..length], (32, 32), Method::Crop, MAX);
                let mut broken = bytes.clone();
                broken[length] ^= 0xff;
                let _ = resize(&broken, (32, 32), Method::Scale, MAX);
            }
            assert!(resize(&bytes[..8], (32, 32), Method::Crop, MAX).is_err(), "{format:?}");
        }
        for nothing in [&b""[..], b"<svg/>", b"\xff\xd8\xff", b"GIF89a", b"RIFF\0\0\0\0WEBP"] {
            assert!(resize(nothing, (32, 32), Method::Scale, MAX).is_err());
        }
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0_u32, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 })
        })
    }
}
