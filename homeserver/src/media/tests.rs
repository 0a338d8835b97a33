use std::{convert::Infallible, io::Cursor, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gatehouse_shared::clock::TurnedClock;
use image::{DynamicImage, ImageFormat, RgbImage};
use ruma::server_name;

use super::*;
use crate::storage::DbConfig;

const ALICE: i64 = 1;
const BOB: i64 = 2;
const NO_WAIT: Duration = Duration::ZERO;

struct Place {
    media: Media,
    clock: Arc<TurnedClock>,
    folder: tempfile::TempDir,
}

impl Place {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = DbConfig::Sqlite { path: folder.path().join("media.db"), readers: 2 };
        let db = Db::open(&config).await.unwrap();
        let clock = Arc::new(TurnedClock::at_ms(1_000_000));
        let options = MediaOptions {
            folder: folder.path().join("media"),
            max_upload_bytes: 100_000,
            max_image_pixels: 1_000_000,
            unauthenticated: Unauthenticated::Refused,
        };
        let name = server_name!("example.org").to_owned();
        let media = Media::open(db, Arc::new(clock.clone()), name, options, None).await.unwrap();
        Self { media, clock, folder }
    }

    fn files(&self, folder: &str) -> usize {
        fn count(path: &std::path::Path) -> usize {
            let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
            entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
        }
        count(&self.folder.path().join("media").join(folder))
    }
}

fn body(content: &[u8]) -> impl Stream + use<> {
    let chunks: Vec<_> = content.chunks(1000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    stream::iter(chunks)
}

trait Stream: futures_util::Stream<Item = Result<Bytes, Infallible>> + Send {}
impl<S: futures_util::Stream<Item = Result<Bytes, Infallible>> + Send> Stream for S {}

fn described(content_type: &str, file_name: &str) -> Described {
    Described { content_type: Some(content_type.to_owned()), file_name: Some(file_name.to_owned()), size: None }
}

async fn read(media: &Media, content: &Content) -> Vec<u8> {
    media.body(content, 0..content.size).await.unwrap().try_collect::<Vec<_>>().await.unwrap().concat()
}

fn picture(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    DynamicImage::from(RgbImage::new(width, height)).write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
    bytes
}

#[tokio::test]
async fn an_upload_comes_back_as_it_went() {
    let place = Place::open().await;
    let content = vec![7; 5000];
    let mxc = place.media.upload(ALICE, described("image/png", "a/b.png"), body(&content)).await.unwrap();
    let found = place.media.find(&mxc, NO_WAIT, RemoteMedia::Refuse).await.unwrap();
    assert_eq!(found.content_type, "image/png");
    assert_eq!(found.disposition().to_string(), "inline; filename=a_b.png");
    assert_eq!(read(&place.media, &found).await, content);
    let empty = place.media.upload(ALICE, Described::default(), body(b"")).await.unwrap();
    let empty = place.media.find(&empty, NO_WAIT, RemoteMedia::Refuse).await.unwrap();
    assert_eq!((empty.size, empty.content_type.as_str()), (0, "application/octet-stream"));
    assert_eq!(read(&place.media, &empty).await, b"");
}

#[tokio::test]
async fn only_safe_types_are_shown_in_place() {
    let place = Place::open().await;
    for (content_type, disposition) in [
        ("text/html", "attachment"),
        ("image/svg+xml", "attachment"),
        ("application/pdf", "attachment"),
        ("image/png; x=text/html", "inline"),
        ("IMAGE/PNG", "inline"),
        ("text/plain;charset=utf-8", "inline"),
        ("not a type", "attachment"),
    ] {
        let described = Described { content_type: Some(content_type.to_owned()), ..Described::default() };
        let mxc = place.media.upload(ALICE, described, body(b"x")).await.unwrap();
        let found = place.media.find(&mxc, NO_WAIT, RemoteMedia::Refuse).await.unwrap();
        assert_eq!(found.disposition().to_string(), disposition, "{content_type}");
    }
}

#[tokio::test]
async fn what_is_too_large_or_ends_early_leaves_nothing() {
    let place = Place::open().await;
    let too_large = place.media.upload(ALICE, Described::default(), body(&vec![0; 100_001])).await;
    assert!(matches!(too_large, Err(UploadError::TooLarge { max: 100_000 })));
    let announced = Described { size: Some(100_001), ..Described::default() };
    let refused = place.media.upload(ALICE, announced, body(b"")).await;
    assert!(matches!(refused, Err(UploadError::TooLarge { .. })));
    let cut = stream::iter([Ok(Bytes::from_static(b"half")), Err("the connection is gone")]);
    let interrupted = place.media.upload(ALICE, Described::default(), cut).await;
    assert!(matches!(interrupted, Err(UploadError::Interrupted)));
    assert_eq!((place.files("incoming"), place.files("blobs")), (0, 0));
}

#[tokio::test]
async fn the_same_content_is_kept_once_however_often_it_comes() {
    let place = Place::open().await;
    let uploads = (0..16).map(|user| place.media.upload(user, Described::default(), body(&[9; 50_000])));
    let names = futures_util::future::try_join_all(uploads).await.unwrap();
    assert_eq!(names.iter().collect::<std::collections::HashSet<_>>().len(), 16);
    assert_eq!((place.files("incoming"), place.files("blobs")), (0, 1));
    for mxc in names {
        let found = place.media.find(&mxc, NO_WAIT, RemoteMedia::Refuse).await.unwrap();
        assert_eq!(read(&place.media, &found).await, [9; 50_000]);
    }
}

#[tokio::test]
async fn a_reserved_id_is_filled_once_by_whom_it_belongs_to() {
    let place = Place::open().await;
    let Reserved { mxc, .. } = place.media.reserve(ALICE).await.unwrap();
    let upload = |user| place.media.upload_to(&mxc, user, Described::default(), body(b"late"));
    assert!(matches!(place.media.find(&mxc, NO_WAIT, RemoteMedia::Refuse).await, Err(DownloadError::NotYetUploaded)));
    assert!(matches!(upload(BOB).await, Err(UploadToError::NotTheReserver)));
    let (waited, uploaded) =
        tokio::join!(place.media.find(&mxc, Duration::from_secs(20), RemoteMedia::Refuse), async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            upload(ALICE).await
        });
    uploaded.unwrap();
    assert_eq!(read(&place.media, &waited.unwrap()).await, b"late");
    assert!(matches!(upload(ALICE).await, Err(UploadToError::AlreadyUploaded)));
    let other = Mxc { media_id: MediaId::parse("never").unwrap(), ..mxc.clone() };
    let to_other = place.media.upload_to(&other, ALICE, Described::default(), body(b"x")).await;
    assert!(matches!(to_other, Err(UploadToError::NotReserved)));
}

#[tokio::test]
async fn reservations_are_few_and_expire() {
    let place = Place::open().await;
    let first = place.media.reserve(ALICE).await.unwrap().mxc;
    for _ in 1..16 {
        place.media.reserve(ALICE).await.unwrap();
    }
    assert!(matches!(place.media.reserve(ALICE).await, Err(ReserveError::TooMany)));
    place.media.reserve(BOB).await.unwrap();
    place.clock.advance(Duration::from_secs(24 * 60 * 60));
    let expired = place.media.upload_to(&first, ALICE, Described::default(), body(b"x")).await;
    assert!(matches!(expired, Err(UploadToError::NotReserved)));
    assert!(matches!(place.media.find(&first, NO_WAIT, RemoteMedia::Refuse).await, Err(DownloadError::NotFound)));
    place.media.reserve(ALICE).await.unwrap();
}

#[tokio::test]
async fn a_thumbnail_is_made_once_per_content_and_size() {
    let place = Place::open().await;
    let picture = picture(400, 300);
    let upload = || place.media.upload(ALICE, described("image/png", "p.png"), body(&picture));
    let (first, second) = (upload().await.unwrap(), upload().await.unwrap());
    let wanted = Wanted { width: 80, height: 80, method: Method::Crop };
    let requests =
        [&first, &second, &first].map(|mxc| place.media.thumbnail(mxc, wanted, NO_WAIT, RemoteMedia::Refuse));
    let made = futures_util::future::try_join_all(requests).await.unwrap();
    assert!(made.iter().all(|content| *content == made[0]));
    let bytes = read(&place.media, &made[0]).await;
    let small = image::load_from_memory(&bytes).unwrap();
    assert_eq!((small.width(), small.height()), (96, 96));
    assert_eq!(made[0].disposition().to_string(), "inline; filename=thumbnail.jpg");
    assert_eq!(place.files("blobs"), 2);
}

#[tokio::test]
async fn what_is_no_picture_or_too_large_a_one_has_no_thumbnail() {
    let place = Place::open().await;
    let wanted = Wanted { width: 80, height: 80, method: Method::Scale };
    let text = place.media.upload(ALICE, described("image/png", "p.png"), body(b"no picture")).await.unwrap();
    let large = picture(2000, 600);
    let large = place.media.upload(ALICE, Described::default(), body(&large)).await.unwrap();
    let thumbnail = |mxc, wanted| place.media.thumbnail(mxc, wanted, NO_WAIT, RemoteMedia::Refuse);
    assert!(matches!(thumbnail(&text, wanted).await, Err(ThumbnailError::NotAPicture)));
    assert!(matches!(thumbnail(&large, wanted).await, Err(ThumbnailError::TooLarge { is_remote: false })));
    let nothing = Wanted { width: 0, ..wanted };
    assert!(matches!(thumbnail(&text, nothing).await, Err(ThumbnailError::NoSize)));
}

#[tokio::test]
async fn a_part_of_the_content_can_be_opened() {
    let place = Place::open().await;
    let mxc = place.media.upload(ALICE, Described::default(), body(b"0123456789")).await.unwrap();
    let found = place.media.find(&mxc, NO_WAIT, RemoteMedia::Refuse).await.unwrap();
    let mut part = place.media.body(&found, 2..5).await.unwrap();
    assert_eq!(part.next().await.unwrap().unwrap(), "234");
    assert!(part.next().await.is_none());
}
