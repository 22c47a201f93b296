//! Settings: environment over file over `default.toml`. Both services read the same keys, so that
//! one environment file can serve both.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use config::{Config, Environment, File, FileFormat};
use ipnet::IpNet;
use serde::Deserialize;
use url::Url;

use crate::jwt::JwtRules;
use crate::nats::NatsSettings;
use crate::nats::topology::TopologySettings;
use crate::partition::PartitionCount;
use crate::secret::{MasterKeys, Secret};

/// Shorter ones are guessed. RFC 7518, 3.2 asks for 32; some issuers' are shorter.
const JWT_SECRET_BYTES_MIN: usize = 16;
const DEFAULTS: &str = include_str!("../default.toml");

/// Which of the two processes is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Ingest,
    Dispatcher,
}

impl Service {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Dispatcher => "dispatcher",
        }
    }

    fn default_addresses(self) -> (SocketAddr, SocketAddr) {
        use std::net::{IpAddr, Ipv4Addr};
        let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        match self {
            Self::Ingest => (local(8081), local(9465)),
            Self::Dispatcher => (local(8080), local(9464)),
        }
    }
}

/// Checked settings.
#[derive(Clone)]
pub struct Settings {
    pub service: Service,
    pub nats: NatsSettings,
    pub topology: TopologySettings,
    /// Journal entries of a partition after which a snapshot is stored.
    pub snapshot_entries: u64,
    /// Whether ingest gathers events into atomic batches.
    pub publish_batches: bool,
    pub http_addr: SocketAddr,
    pub ops_addr: SocketAddr,
    pub public_ingest_url: String,
    pub master_keys: MasterKeys,
    pub admin_token: Option<Secret>,
    pub jwt: JwtRules,
    /// Where the issuer's public keys are.
    pub jwt_jwks_url: Option<Url>,
    pub endpoint_allow_cidrs: Vec<IpNet>,
    pub connectors_dir: Option<PathBuf>,
    pub log: String,
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

/// A setting is missing, unknown or malformed.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("settings: {0}")]
    Read(#[from] config::ConfigError),
    #[error("setting {key} (CARILLON_{}): {detail}", key.to_uppercase())]
    Invalid { key: &'static str, detail: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    nats_url: OneOrMany,
    nats_credentials_file: String,
    nats_tls_ca_file: String,
    stream_replicas: usize,
    partitions: u16,
    snapshot_entries: u64,
    publish_batches: bool,
    http_addr: String,
    ops_addr: String,
    public_ingest_url: String,
    master_key: Secret,
    master_key_previous: OneOrMany,
    admin_token: Secret,
    jwt_hs256_secret: Secret,
    jwt_jwks_url: String,
    jwt_audience: String,
    jwt_issuer: String,
    endpoint_allow_cidrs: OneOrMany,
    connectors_dir: String,
    log: String,
    log_format: LogFormat,
}

/// A list, or text with commas: environment variables have no lists.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    Text(String),
    List(Vec<String>),
}

impl OneOrMany {
    fn values(&self) -> Vec<&str> {
        let texts = match self {
            Self::Text(text) => vec![text.as_str()],
            Self::List(list) => list.iter().map(String::as_str).collect(),
        };
        texts
            .into_iter()
            .flat_map(|text| text.split(','))
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .collect()
    }
}

impl Settings {
    /// Reads the process's environment and, when given, the file.
    pub fn load(service: Service, file: Option<PathBuf>) -> Result<Self, SettingsError> {
        Self::load_from(service, file, std::env::vars().collect())
    }

    fn load_from(
        service: Service,
        file: Option<PathBuf>,
        environment: HashMap<String, String>,
    ) -> Result<Self, SettingsError> {
        let mut builder = Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if let Some(path) = file {
            builder = builder.add_source(File::from(path).format(FileFormat::Toml));
        }
        let ours = environment
            .into_iter()
            .filter(|(name, _)| !is_of_kubernetes(name))
            .collect();
        let environment = Environment::with_prefix("CARILLON").source(Some(ours));
        let raw: Raw = builder.add_source(environment).build()?.try_deserialize()?;
        raw.check(service)
    }
}

/// Kubernetes tells every container of the Services beside it: of one named `carillon` by
/// `CARILLON_SERVICE_HOST`, `CARILLON_PORT` and the like, of one named `carillon-ingest` by
/// `CARILLON_INGEST_…`. None of these is a setting.
fn is_of_kubernetes(name: &str) -> bool {
    ["CARILLON_", "CARILLON_INGEST_", "CARILLON_DISPATCHER_"]
        .iter()
        .filter_map(|service| name.strip_prefix(service))
        .any(|rest| rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_"))
}

impl Raw {
    fn check(self, service: Service) -> Result<Settings, SettingsError> {
        let (default_http, default_ops) = service.default_addresses();
        let previous = self.master_key_previous.values();
        let master_keys = match MasterKeys::new(self.master_key.reveal(), &previous) {
            Ok(keys) => keys,
            Err(_) if self.master_key.reveal().is_empty() => {
                return invalid(
                    "master_key",
                    "must be set; make one with: openssl rand -base64 32",
                );
            }
            Err(error) => return invalid("master_key", error),
        };
        if service == Service::Dispatcher && self.admin_token.reveal().len() < 16 {
            return invalid("admin_token", "must be set, to 16 characters or more");
        }
        let Some(partitions) = PartitionCount::new(self.partitions) else {
            return invalid("partitions", "must be from 1 to 4096");
        };
        if ![1, 3, 5].contains(&self.stream_replicas) {
            return invalid("stream_replicas", "must be 1, 3 or 5");
        }
        if self.snapshot_entries == 0 {
            return invalid("snapshot_entries", "must be 1 or more");
        }
        let public = self.public_ingest_url.trim_end_matches('/').to_owned();
        match Url::parse(&public) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => {}
            Ok(_) | Err(_) => return invalid("public_ingest_url", "must be an http or https URL"),
        }
        let jwt = self.jwt()?;
        let jwt_jwks_url = jwks_url(&self.jwt_jwks_url)?;
        let cidrs = self.endpoint_allow_cidrs.values();
        Ok(Settings {
            service,
            nats: NatsSettings {
                urls: self.nats_url.values().into_iter().map(Into::into).collect(),
                credentials_file: path(&self.nats_credentials_file),
                tls_ca_file: path(&self.nats_tls_ca_file),
                client_name: format!("carillon {}", service.name()),
            },
            topology: TopologySettings {
                replicas: self.stream_replicas,
                partitions,
            },
            snapshot_entries: self.snapshot_entries,
            publish_batches: self.publish_batches,
            http_addr: address("http_addr", &self.http_addr, default_http)?,
            ops_addr: address("ops_addr", &self.ops_addr, default_ops)?,
            public_ingest_url: public,
            master_keys,
            jwt,
            jwt_jwks_url,
            admin_token: Some(self.admin_token).filter(|token| !token.reveal().is_empty()),
            endpoint_allow_cidrs: cidrs
                .into_iter()
                .map(|text| match text.parse() {
                    Ok(net) => Ok(net),
                    Err(_) => invalid("endpoint_allow_cidrs", format!("no network: {text:?}")),
                })
                .collect::<Result<_, _>>()?,
            connectors_dir: path(&self.connectors_dir),
            log: self.log,
            log_format: self.log_format,
        })
    }
}

impl Raw {
    fn jwt(&self) -> Result<JwtRules, SettingsError> {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let secret = &self.jwt_hs256_secret;
        if (1..JWT_SECRET_BYTES_MIN).contains(&secret.reveal().len()) {
            return invalid("jwt_hs256_secret", "must be of 16 bytes or more");
        }
        Ok(JwtRules {
            hs256_secret: Some(secret.clone()).filter(|secret| !secret.reveal().is_empty()),
            audience: text(&self.jwt_audience),
            issuer: text(&self.jwt_issuer),
        })
    }
}

fn jwks_url(text: &str) -> Result<Option<Url>, SettingsError> {
    if text.is_empty() {
        return Ok(None);
    }
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(Some(url)),
        Ok(url) if url.scheme() == "file" && url.to_file_path().is_ok() => Ok(Some(url)),
        Ok(_) | Err(_) => invalid("jwt_jwks_url", "must be an http, https or file URL"),
    }
}

fn invalid<T>(key: &'static str, detail: impl fmt::Display) -> Result<T, SettingsError> {
    Err(SettingsError::Invalid {
        key,
        detail: detail.to_string(),
    })
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

fn address(
    key: &'static str,
    text: &str,
    default: SocketAddr,
) -> Result<SocketAddr, SettingsError> {
    if text.is_empty() {
        return Ok(default);
    }
    match text.parse() {
        Ok(address) => Ok(address),
        Err(_) => invalid(key, format!("must be an address and port: {text:?}")),
    }
}

/// What `--check-config` prints: TOML with secrets masked.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = |path: &Option<PathBuf>| {
            path.as_ref()
                .map(|path| path.display().to_string())
                .unwrap_or_default()
        };
        let cidrs: Vec<_> = self
            .endpoint_allow_cidrs
            .iter()
            .map(ToString::to_string)
            .collect();
        let urls: Vec<_> = self
            .nats
            .urls
            .iter()
            .map(|url| without_password(url))
            .collect();
        writeln!(f, "# effective settings of {}", self.service.name())?;
        writeln!(f, "nats_url = {urls:?}")?;
        writeln!(
            f,
            "nats_credentials_file = {:?}",
            file(&self.nats.credentials_file)
        )?;
        writeln!(f, "nats_tls_ca_file = {:?}", file(&self.nats.tls_ca_file))?;
        writeln!(f, "stream_replicas = {}", self.topology.replicas)?;
        writeln!(f, "partitions = {}", self.topology.partitions.get())?;
        writeln!(f, "snapshot_entries = {}", self.snapshot_entries)?;
        writeln!(f, "publish_batches = {}", self.publish_batches)?;
        writeln!(f, "http_addr = \"{}\"", self.http_addr)?;
        writeln!(f, "ops_addr = \"{}\"", self.ops_addr)?;
        writeln!(f, "public_ingest_url = {:?}", self.public_ingest_url)?;
        writeln!(f, "master_key = \"(set)\"")?;
        let token = if self.admin_token.is_some() {
            "(set)"
        } else {
            ""
        };
        writeln!(f, "admin_token = \"{token}\"")?;
        let secret = match &self.jwt.hs256_secret {
            Some(_) => "(set)",
            None => "",
        };
        let or_none = |text: &Option<String>| text.clone().unwrap_or_default();
        // Without the query and the password, which may be credentials.
        let jwks = self.jwt_jwks_url.as_ref().map(|url| {
            let host = url.host_str().unwrap_or_default();
            format!("{}://{host}{}", url.scheme(), url.path())
        });
        writeln!(f, "jwt_hs256_secret = \"{secret}\"")?;
        writeln!(f, "jwt_jwks_url = {:?}", or_none(&jwks))?;
        writeln!(f, "jwt_audience = {:?}", or_none(&self.jwt.audience))?;
        writeln!(f, "jwt_issuer = {:?}", or_none(&self.jwt.issuer))?;
        writeln!(f, "endpoint_allow_cidrs = {cidrs:?}")?;
        writeln!(f, "connectors_dir = {:?}", file(&self.connectors_dir))?;
        writeln!(f, "log = {:?}", self.log)?;
        write!(
            f,
            "log_format = \"{}\"",
            match self.log_format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            }
        )
    }
}

fn without_password(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => url.to_owned(),
    }
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Arguments {
    pub config: Option<PathBuf>,
    pub check_config: bool,
    /// Seal with the current master key what former ones have sealed, instead of serving.
    pub reseal: bool,
}

impl Arguments {
    /// `--config FILE`, `--check-config`, and of the dispatcher `--reseal`.
    pub fn parse(
        service: Service,
        arguments: impl IntoIterator<Item = std::ffi::OsString>,
    ) -> Result<Self, lexopt::Error> {
        use lexopt::Arg::Long;
        let mut parser = lexopt::Parser::from_args(arguments);
        let mut parsed = Self {
            config: None,
            check_config: false,
            reseal: false,
        };
        while let Some(argument) = parser.next()? {
            match argument {
                Long("config") => parsed.config = Some(parser.value()?.into()),
                Long("check-config") => parsed.check_config = true,
                Long("reseal") if service == Service::Dispatcher => parsed.reseal = true,
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    fn load(service: Service, extra: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let environment = [
            ("CARILLON_MASTER_KEY", KEY),
            ("CARILLON_ADMIN_TOKEN", "0123456789abcdef"),
            ("PATH", "/bin"),
        ]
        .iter()
        .chain(extra)
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
        Settings::load_from(service, None, environment)
    }

    #[test]
    fn defaults_need_a_master_key_and_an_admin_token_only() {
        let settings = load(Service::Dispatcher, &[]).unwrap();
        assert_eq!(settings.http_addr.port(), 8080);
        assert_eq!(settings.ops_addr.port(), 9464);
        assert_eq!(settings.nats.urls, ["nats://127.0.0.1:4222"]);
        assert!(load(Service::Dispatcher, &[("CARILLON_MASTER_KEY", "")]).is_err());
        assert!(load(Service::Dispatcher, &[("CARILLON_ADMIN_TOKEN", "")]).is_err());
        assert!(load(Service::Ingest, &[("CARILLON_ADMIN_TOKEN", "")]).is_ok());
    }

    #[test]
    fn the_environment_overrides_and_unknown_or_malformed_keys_are_errors() {
        let settings = load(
            Service::Ingest,
            &[
                ("CARILLON_NATS_URL", "nats://a:1, nats://b:2"),
                ("CARILLON_ENDPOINT_ALLOW_CIDRS", "127.0.0.0/8,::1/128"),
                ("CARILLON_HTTP_ADDR", "127.0.0.1:1"),
                ("CARILLON_ADMIN_TOKEN", "0123456789012345"),
            ],
        )
        .unwrap();
        assert_eq!(settings.nats.urls, ["nats://a:1", "nats://b:2"]);
        assert_eq!(settings.endpoint_allow_cidrs.len(), 2);
        assert_eq!(settings.admin_token.unwrap().reveal(), "0123456789012345");
        for (key, value) in [
            ("CARILLON_HTP_ADDR", "127.0.0.1:1"),
            ("CARILLON_HTTP_ADDR", "localhost"),
            ("CARILLON_STREAM_REPLICAS", "2"),
            ("CARILLON_PARTITIONS", "0"),
            ("CARILLON_ENDPOINT_ALLOW_CIDRS", "10.0.0.0/99"),
            ("CARILLON_PUBLIC_INGEST_URL", "ftp://x"),
            ("CARILLON_MASTER_KEY", "c2hvcnQ="),
            ("CARILLON_JWT_HS256_SECRET", "short"),
            ("CARILLON_JWT_JWKS_URL", "keys.json"),
            ("CARILLON_JWT_JWKS_URL", "ftp://idp/keys"),
        ] {
            assert!(load(Service::Ingest, &[(key, value)]).is_err(), "{key}");
        }
    }

    #[test]
    fn what_kubernetes_says_of_a_service_named_carillon_is_no_setting() {
        let said = [
            ("CARILLON_SERVICE_HOST", "10.0.0.1"),
            ("CARILLON_SERVICE_PORT", "8080"),
            ("CARILLON_SERVICE_PORT_HTTP", "8080"),
            ("CARILLON_PORT", "tcp://10.0.0.1:8080"),
            ("CARILLON_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("CARILLON_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("CARILLON_INGEST_SERVICE_HOST", "10.0.0.1"),
        ];
        load(Service::Dispatcher, &said).unwrap();
        for unknown in ["CARILLON_PORTS", "CARILLON_SERVICES", "CARILLON_HTTP_PORT"] {
            assert!(
                load(Service::Ingest, &[(unknown, "1")]).is_err(),
                "{unknown}"
            );
        }
    }

    #[test]
    fn a_strangers_malformed_request_is_not_logged_as_an_error() {
        let settings = load(Service::Ingest, &[]).unwrap();
        assert!(settings.log.split(',').any(|one| one == "actix_http=off"));
    }

    #[test]
    fn printed_settings_hold_no_secret() {
        let set = [
            ("CARILLON_NATS_URL", "nats://user:hunter2@a:1"),
            ("CARILLON_JWT_HS256_SECRET", "a secret of tokens"),
            (
                "CARILLON_JWT_JWKS_URL",
                "https://u:hunter2@idp/keys?key=hunter3",
            ),
        ];
        let printed = load(Service::Dispatcher, &set).unwrap().to_string();
        assert!(printed.contains("https://idp/keys"), "{printed}");
        for secret in [KEY, "0123456789abcdef", "hunter", "of tokens"] {
            assert!(!printed.contains(secret), "{printed}");
        }
    }
}
