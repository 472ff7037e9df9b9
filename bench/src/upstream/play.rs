//! A play: what the endpoint answers to which calls, scene by scene, so that a whole task with many
//! steps can be scripted from outside and each step hands on what the tools before it gave.

mod fill;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::request::{Part, Turn, shown};
use super::script::{ScriptedCall, read_calls};
use super::see;

/// Scenes in the order in which they are tried. Written as
/// `{"scenes":[{"when":["..."],"results":0,"say":"..."}]}`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Play {
    pub scenes: Vec<Scene>,
}

/// One scene: when it is on, and what is said and called then. Texts and arguments may hold
/// `{{result:N:/json/pointer}}`: what stands there in the N-th tool result of the conversation, from 0,
/// or from its end where N is negative; without a pointer the whole result.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scene {
    /// For whoever reads the play.
    pub about: Option<String>,
    /// Each of these stands somewhere in what the system, the user and the tools say.
    pub when: Vec<String>,
    /// How many tool results the conversation has.
    pub results: Option<usize>,
    /// A text; or any other JSON, which is written out.
    pub say: Option<Value>,
    /// Tools to call, if the caller offers them.
    #[serde(deserialize_with = "one_or_several")]
    pub call: Vec<ScriptedCall>,
    /// Visible reasoning before all that.
    pub thinking: Option<String>,
    /// Milliseconds to the first token.
    pub first_ms: Option<u64>,
    /// What is billed and told, where it is not what was read and written.
    pub usage: Option<Usage>,
    /// At most once, as `"times": 1`.
    pub once: bool,
    /// At most so often, by this endpoint.
    pub times: Option<u64>,
}

/// Tokens of a scene, where they are not counted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Usage {
    pub prompt_tokens: Option<u64>,
    pub cached_tokens: Option<u64>,
    /// Reasoning that nobody sees, billed with the answer.
    pub reasoning_tokens: Option<u64>,
}

fn one_or_several<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<ScriptedCall>, D::Error> {
    read_calls(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

impl Play {
    /// The play in a file; or those in the files `*.play.json` of a folder, one behind the other in the
    /// order of their names.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let mut play = Self::default();
        for file in files(path)? {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("reading the play {}", file.display()))?;
            let read =
                Self::parse(&text).with_context(|| format!("the play {}", file.display()))?;
            play.scenes.extend(read.scenes);
        }
        Ok(play)
    }

    /// The play in a text.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let play: Self = serde_json::from_str(text)?;
        for (place, scene) in play.scenes.iter().enumerate() {
            scene
                .check()
                .with_context(|| format!("scene {place} (the first is 0)"))?;
        }
        Ok(play)
    }
}

fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).with_context(|| format!("listing {}", path.display()))? {
        let file = entry?.path();
        if file.to_string_lossy().ends_with(".play.json") {
            found.push(file);
        }
    }
    ensure!(!found.is_empty(), "{} has no *.play.json", path.display());
    found.sort();
    Ok(found)
}

impl Scene {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.say.is_some() || !self.call.is_empty(),
            "it neither says nor calls anything"
        );
        let say = self.say.iter();
        for value in say.chain(self.call.iter().map(|call| &call.arguments)) {
            fill::check(value)?;
        }
        Ok(())
    }

    fn most(&self) -> u64 {
        let once = self.once.then_some(1);
        once.or(self.times).unwrap_or(u64::MAX)
    }

    fn fits(&self, heard: &Heard) -> bool {
        self.results.is_none_or(|n| n == heard.results.len())
            && self.when.iter().all(|word| heard.says(word))
    }
}

/// What a call says to a model.
#[derive(Debug)]
pub(super) struct Heard {
    texts: Vec<String>,
    /// The text of each tool result.
    results: Vec<String>,
}

impl Heard {
    /// What `request` with these turns says.
    pub(super) fn of(request: &Value, turns: &[Turn<'_>]) -> Self {
        let mut heard = Self {
            texts: vec![see::system(request, turns)],
            results: Vec::new(),
        };
        for turn in turns.iter().filter(|turn| !turn.is_system()) {
            for part in &turn.parts {
                match part {
                    // What the model itself has said is nothing that it hears.
                    Part::Text(text) if turn.role != "assistant" => {
                        heard.texts.push((*text).to_owned());
                    }
                    Part::Outcome(parts) => {
                        let told: Vec<String> = parts.iter().filter_map(shown).collect();
                        heard.results.push(told.join("\n"));
                    }
                    _ => {}
                }
            }
        }
        heard
    }

    fn says(&self, word: &str) -> bool {
        let mut all = self.texts.iter().chain(&self.results);
        all.any(|text| text.contains(word))
    }
}

/// A play under way.
#[derive(Debug, Default)]
pub(super) struct Stage {
    play: Play,
    /// How often each scene was on.
    played: Vec<u64>,
}

/// What is answered in a scene.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) say: Option<String>,
    pub(super) call: Vec<ScriptedCall>,
    pub(super) thinking: Option<String>,
    pub(super) first_ms: Option<u64>,
    pub(super) usage: Usage,
}

impl Stage {
    pub(super) fn of(play: Play) -> Self {
        let played = vec![0; play.scenes.len()];
        Self { play, played }
    }

    /// Nothing is played here.
    pub(super) fn is_empty(&self) -> bool {
        self.play.scenes.is_empty()
    }

    /// What is answered to `heard`: the first scene that fits and has not been on too often; nothing
    /// where there is none. A scene that wants what no tool has given says so instead.
    pub(super) fn line(&mut self, heard: &Heard) -> Option<Line> {
        let mut scenes = self.play.scenes.iter().zip(&mut self.played);
        let (scene, played) =
            scenes.find(|(scene, played)| **played < scene.most() && scene.fits(heard))?;
        *played += 1;
        let (say, call) = match spoken(scene, heard) {
            Ok(spoken) => spoken,
            Err(missing) => (Some(missing), Vec::new()),
        };
        Some(Line {
            say,
            call,
            thinking: scene.thinking.clone(),
            first_ms: scene.first_ms,
            usage: scene.usage.clone().unwrap_or_default(),
        })
    }
}

/// A scene's text and calls with everything filled in.
fn spoken(scene: &Scene, heard: &Heard) -> Result<(Option<String>, Vec<ScriptedCall>), String> {
    let filled = scene.say.as_ref().map(|say| match say {
        Value::String(text) => fill::text(text, &heard.results),
        other => fill::value(other, &heard.results).map(|value| value.to_string()),
    });
    let mut call = scene.call.clone();
    for call in &mut call {
        call.arguments = fill::value(&call.arguments, &heard.results)?;
    }
    Ok((filled.transpose()?, call))
}
