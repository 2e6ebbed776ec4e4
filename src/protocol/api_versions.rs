//! ApiVersions (key 18), versions 0 to 4: what a broker supports, and the cluster's feature levels.

use std::sync::Arc;

use super::wire::{Decoded, Reader, Writer};
use super::{ApiKey, ErrorCode, VersionRange};

/// Asks what the broker supports; the first request on every connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiVersionsRequest {
    /// The client library's name, `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?` (version 3 and
    /// later, KIP-511); a broker refuses others with `INVALID_REQUEST`.
    pub client_software_name: Arc<str>,
    /// The client library's version, of the same form (version 3 and later).
    pub client_software_version: Arc<str>,
}

impl ApiVersionsRequest {
    /// Appends the request's body.
    pub fn encode(&self, version: i16, out: &mut Vec<u8>) {
        let mut w = Writer::new(out, ApiKey::ApiVersions.is_flexible(version));
        if version >= 3 {
            w.string(&self.client_software_name);
            w.string(&self.client_software_version);
        }
        w.no_tagged_fields();
    }

    /// Reads the request's body; names that the version lacks are empty.
    pub fn decode(r: &mut Reader<'_>, version: i16) -> Decoded<Self> {
        r.set_flexible(ApiKey::ApiVersions.is_flexible(version));
        let mut names = [Arc::from(""), Arc::from("")];
        if version >= 3 {
            names = [r.text()?, r.text()?];
        }
        r.skip_tagged_fields()?;
        let [client_software_name, client_software_version] = names;
        Ok(Self { client_software_name, client_software_version })
    }
}

/// What the broker supports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiVersionsResponse {
    /// What went wrong, or `NONE`. With `UNSUPPORTED_VERSION` the response has the form of
    /// version 0, and `api_keys` holds ApiVersions' own range or nothing.
    pub error_code: ErrorCode,
    /// The versions of each API; keys may be unknown to this crate.
    pub api_keys: Vec<ApiVersion>,
    /// Milliseconds for which the client is to leave the broker alone (version 1 and later).
    pub throttle_time_ms: i32,
    /// The features that the broker supports (version 3 and later, KIP-584).
    pub supported_features: Vec<SupportedFeature>,
    /// The age of `finalized_features`: a higher one is newer; -1 if unknown.
    pub finalized_features_epoch: i64,
    /// The feature levels of the whole cluster, valid if the epoch is not negative.
    pub finalized_features: Vec<FinalizedFeature>,
}

/// The versions of an API that a broker supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiVersion {
    /// The API's key; may be unknown to this crate.
    pub api_key: i16,
    /// Its versions.
    pub versions: VersionRange,
}

/// A feature that a broker supports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupportedFeature {
    /// The feature's name.
    pub name: Arc<str>,
    /// Its levels.
    pub versions: VersionRange,
}

/// A feature's level in the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalizedFeature {
    /// The feature's name.
    pub name: Arc<str>,
    /// The highest level in use.
    pub max_version_level: i16,
    /// The lowest level in use.
    pub min_version_level: i16,
}

impl ApiVersionsResponse {
    /// Appends the response's body. An answer of `UNSUPPORTED_VERSION` is to be encoded as
    /// version 0, whatever was asked.
    pub fn encode(&self, version: i16, out: &mut Vec<u8>) {
        let mut w = Writer::new(out, ApiKey::ApiVersions.is_flexible(version));
        w.i16(self.error_code.0);
        w.array(&self.api_keys, |w, api| {
            w.i16(api.api_key);
            w.i16(api.versions.min);
            w.i16(api.versions.max);
            w.no_tagged_fields();
        });
        if version >= 1 {
            w.i32(self.throttle_time_ms);
        }
        if version >= 3 {
            self.encode_features(&mut w);
        }
    }

    fn encode_features(&self, w: &mut Writer<'_>) {
        let (supported, finalized) = (&self.supported_features, &self.finalized_features);
        let has_epoch = self.finalized_features_epoch >= 0;
        let count = [!supported.is_empty(), has_epoch, !finalized.is_empty()];
        w.tagged_field_count(count.into_iter().map(u32::from).sum());
        if !supported.is_empty() {
            w.tagged_field(0, |w| {
                w.array(supported, |w, feature| {
                    w.string(&feature.name);
                    w.i16(feature.versions.min);
                    w.i16(feature.versions.max);
                    w.no_tagged_fields();
                });
            });
        }
        if has_epoch {
            w.tagged_field(1, |w| w.i64(self.finalized_features_epoch));
        }
        if !finalized.is_empty() {
            w.tagged_field(2, |w| {
                w.array(finalized, |w, feature| {
                    w.string(&feature.name);
                    w.i16(feature.max_version_level);
                    w.i16(feature.min_version_level);
                    w.no_tagged_fields();
                });
            });
        }
    }

    /// Reads the response's body. A broker that does not know the version of the request answers
    /// with `UNSUPPORTED_VERSION` in the form of version 0 (KIP-511), so the error decides.
    pub fn decode(r: &mut Reader<'_>, version: i16) -> Decoded<Self> {
        let error_code = ErrorCode(r.i16()?);
        let version = if error_code == ErrorCode::UNSUPPORTED_VERSION { 0 } else { version };
        r.set_flexible(ApiKey::ApiVersions.is_flexible(version));
        let api_keys = r.array(|r| {
            let api_key = r.i16()?;
            let versions = VersionRange { min: r.i16()?, max: r.i16()? };
            r.skip_tagged_fields()?;
            Ok(ApiVersion { api_key, versions })
        })?;
        let throttle_time_ms = if version >= 1 { r.i32()? } else { 0 };
        let mut response = Self {
            error_code,
            api_keys,
            throttle_time_ms,
            supported_features: Vec::new(),
            finalized_features_epoch: -1,
            finalized_features: Vec::new(),
        };
        r.tagged_fields(|tag, r| {
            match tag {
                0 => response.supported_features = r.array(supported_feature)?,
                1 => response.finalized_features_epoch = r.i64()?,
                2 => response.finalized_features = r.array(finalized_feature)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(response)
    }

    /// The versions of an API that the broker supports.
    pub fn versions(&self, key: ApiKey) -> Option<VersionRange> {
        let api = self.api_keys.iter().find(|api| api.api_key == key.code());
        api.map(|api| api.versions)
    }
}

fn supported_feature(r: &mut Reader<'_>) -> Decoded<SupportedFeature> {
    let name = r.text()?;
    let versions = VersionRange { min: r.i16()?, max: r.i16()? };
    r.skip_tagged_fields()?;
    Ok(SupportedFeature { name, versions })
}

fn finalized_feature(r: &mut Reader<'_>) -> Decoded<FinalizedFeature> {
    let name = r.text()?;
    let (max_version_level, min_version_level) = (r.i16()?, r.i16()?);
    r.skip_tagged_fields()?;
    Ok(FinalizedFeature { name, max_version_level, min_version_level })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Kafka 4.3.1 answers to version 9: error 35 and ApiVersions' own range, as version 0.
    #[test]
    fn an_unsupported_version_is_answered_in_the_form_of_version_0() {
        let bytes = [0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4];
        for version in 0..=4 {
            let mut r = Reader::new(&bytes);
            let response = ApiVersionsResponse::decode(&mut r, version).unwrap();
            assert_eq!(response.error_code, ErrorCode::UNSUPPORTED_VERSION);
            let range = VersionRange { min: 0, max: 4 };
            assert_eq!(response.versions(ApiKey::ApiVersions), Some(range));
            assert_eq!(response.versions(ApiKey::Produce), None);
            assert_eq!(r.expect_end(), Ok(()));
        }
    }

    /// What brokers before 2.4 answer: error 35 and an empty array.
    #[test]
    fn an_unsupported_version_may_come_without_any_range() {
        let response = ApiVersionsResponse::decode(&mut Reader::new(&[0, 35, 0, 0, 0, 0]), 4);
        assert_eq!(response.unwrap().api_keys, []);
    }
}
