//! Java, and Kafka's jars: found, or brought here by Maven, once for each version of the cache.
//!
//! Several test binaries may do this at the same time: everything is made in a folder of its own
//! and renamed into place, so that whoever comes second finds it complete.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The version that is brought here. `KAFKA_HOME` may hold another one.
const VERSION: &str = "4.3.1";

/// The class that `KafkaTools.java` declares.
pub const TOOLS_CLASS: &str = "KafkaTools";
const TOOLS_SOURCE: &str = include_str!("KafkaTools.java");

/// Kafka Connect, which the tools name as well, is not needed, and not published for each version.
const UNNEEDED: &[&str] = &[
    "connect-api",
    "connect-json",
    "connect-runtime",
    "connect-transforms",
    "kafka-log4j-appender",
];

/// A broker with its command-line tools, and a logger that writes to stderr.
fn pom(version: &str) -> String {
    let since = |other: &str| number(version) >= number(other);
    let scala = if since("2.6.0") {
        "2.13"
    } else if since("0.10.2") {
        "2.12"
    } else {
        "2.11"
    };
    let exclusion = |name: &&str| {
        format!(
            "<exclusion><groupId>org.apache.kafka</groupId><artifactId>{name}</artifactId>\
             </exclusion>"
        )
    };
    let exclusions: String = UNNEEDED.iter().map(exclusion).collect();
    let exclusions = format!("<exclusions>{exclusions}</exclusions>");
    let mut dependencies = vec![dependency("org.apache.kafka", &format!("kafka_{scala}"), version)];
    if since("0.9.0") {
        let tools = dependency("org.apache.kafka", "kafka-tools", version);
        dependencies.push(tools.replace("</dependency>", &(exclusions + "</dependency>")));
    }
    // Versions before 1.1 bring a logger of their own.
    if since("4.0.0") {
        dependencies.push(dependency("org.slf4j", "slf4j-simple", "1.7.36"));
    } else if since("3.1.0") {
        dependencies.push(dependency("org.slf4j", "slf4j-reload4j", "1.7.36"));
    } else if since("1.1.0") {
        dependencies.push(dependency("org.slf4j", "slf4j-log4j12", "1.7.30"));
    }
    if !since("1.0.0") {
        // It left the JDK in version 11.
        dependencies.push(dependency("javax.xml.bind", "jaxb-api", "2.3.1"));
    }
    // ZooKeeper 3.4.13 to 3.5.8 can't connect on Java 14 and later.
    if since("2.4.0") && !since("2.8.0") {
        dependencies.push(dependency("org.apache.zookeeper", "zookeeper", "3.5.9"));
    } else if since("2.0.0") && !since("2.4.0") {
        dependencies.push(dependency("org.apache.zookeeper", "zookeeper", "3.4.10"));
    }
    POM.replace("@DEPENDENCIES@", &dependencies.concat())
}

fn dependency(group: &str, artifact: &str, version: &str) -> String {
    format!(
        "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
         <version>{version}</version></dependency>\n"
    )
}

/// A version, to compare with others.
pub fn number(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().expect("a version is numbers")).collect()
}

const POM: &str = r#"<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>broker</artifactId><version>1</version>
  <packaging>pom</packaging>
  <build><plugins><plugin>
    <groupId>org.apache.maven.plugins</groupId>
    <artifactId>maven-dependency-plugin</artifactId><version>3.8.1</version>
  </plugin></plugins></build>
  <dependencies>
@DEPENDENCIES@  </dependencies>
</project>
"#;

/// What it takes to run Kafka on this machine.
pub struct Installation {
    java: PathBuf,
    class_path: String,
}

impl Installation {
    /// Found or made at the first call in this process; `Err` says what is missing.
    pub fn find() -> Result<&'static Self, String> {
        static FOUND: OnceLock<Result<Installation, String>> = OnceLock::new();
        FOUND.get_or_init(Self::prepare).as_ref().map_err(Clone::clone)
    }

    /// Of another version, without this harness's own tools.
    #[allow(dead_code)] // one test binary alone runs old brokers
    pub fn of(version: &str) -> Result<Self, String> {
        let (java, cache) = Self::java_and_cache()?;
        let jars = fetch_jars(&cache, version)?;
        Ok(Self { java, class_path: format!("{}/*", jars.display()) })
    }

    fn java_and_cache() -> Result<(PathBuf, PathBuf), String> {
        let java = from_java_home("java");
        run(Command::new(&java).arg("-version"), "java")?;
        let cache = cache();
        fs::create_dir_all(&cache).map_err(|e| format!("{}: {e}", cache.display()))?;
        Ok((java, cache))
    }

    fn prepare() -> Result<Self, String> {
        let (java, cache) = Self::java_and_cache()?;
        let jars = match std::env::var_os("KAFKA_HOME") {
            Some(home) => Path::new(&home).join("libs"),
            None => fetch_jars(&cache, VERSION)?,
        };
        if !jars.is_dir() {
            return Err(format!("KAFKA_HOME has no {}", jars.display()));
        }
        let classes = compile_tools(&cache, &jars)?;
        let class_path = format!("{}:{}/*", classes.display(), jars.display());
        Ok(Self { java, class_path })
    }

    /// A JVM with Kafka's jars and a heap of so many MiB; the caller adds the class and its
    /// arguments. `level` is the logger's, as slf4j-simple names it.
    pub fn java(&self, heap: u32, level: &str) -> Command {
        let mut command = Command::new(&self.java);
        command
            .arg(format!("-Xmx{heap}m"))
            // The start is what costs here, not the peak throughput.
            .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg(format!("-Dorg.slf4j.simpleLogger.defaultLogLevel={level}"))
            .arg("-Dorg.slf4j.simpleLogger.showDateTime=true")
            .arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS")
            .args(["-cp", &self.class_path]);
        command
    }
}

/// Where jars and compiled helpers are kept from one run to the next.
fn cache() -> PathBuf {
    match std::env::var_os("KAFKA_PRODUCER_CACHE") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).join("kafka"),
    }
}

fn from_java_home(program: &str) -> PathBuf {
    match std::env::var_os("JAVA_HOME") {
        Some(home) => Path::new(&home).join("bin").join(program),
        None => PathBuf::from(program),
    }
}

fn fetch_jars(cache: &Path, version: &str) -> Result<PathBuf, String> {
    let jars = cache.join(format!("libs-{version}"));
    make_once(&jars, |folder| {
        fs::write(folder.join("pom.xml"), pom(version)).map_err(|e| format!("pom.xml: {e}"))?;
        let mut maven = Command::new("mvn");
        maven
            .args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"])
            .arg("-DoutputDirectory=.")
            .current_dir(folder);
        run(&mut maven, "mvn")
    })?;
    Ok(jars)
}

fn compile_tools(cache: &Path, jars: &Path) -> Result<PathBuf, String> {
    let mut hasher = DefaultHasher::new();
    (TOOLS_SOURCE, jars).hash(&mut hasher);
    let classes = cache.join(format!("tools-{:016x}", hasher.finish()));
    make_once(&classes, |folder| {
        let source = folder.join(format!("{TOOLS_CLASS}.java"));
        fs::write(&source, TOOLS_SOURCE).map_err(|e| format!("{}: {e}", source.display()))?;
        let mut javac = Command::new(from_java_home("javac"));
        javac.arg("-cp").arg(format!("{}/*", jars.display())).arg("-d").arg(folder).arg(source);
        run(&mut javac, "javac")
    })?;
    Ok(classes)
}

/// Fills `folder` by way of a folder of this process's own, unless it is there already.
fn make_once(folder: &Path, fill: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), String> {
    if folder.is_dir() {
        return Ok(());
    }
    let mine = folder.with_extension(format!("making-{}", std::process::id()));
    let made = fs::create_dir_all(&mine)
        .map_err(|e| format!("{}: {e}", mine.display()))
        .and_then(|()| fill(&mine))
        .and_then(|()| match fs::rename(&mine, folder) {
            Err(e) if !folder.is_dir() => Err(format!("{}: {e}", folder.display())),
            _ => Ok(()), // this process was first, or another one was
        });
    let _ = fs::remove_dir_all(&mine); // there only if something failed, or another was first
    made
}

fn run(command: &mut Command, name: &str) -> Result<(), String> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().map_err(|e| format!("no {name}: {e}"))?;
    if status.success() {
        return Ok(());
    }
    let said = [stdout, stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let first: Vec<_> = said.lines().filter(|l| !l.trim().is_empty()).take(5).collect();
    Err(format!("{name} failed ({status}): {}", first.join(" / ")))
}
