// Colours in code: comments, strings, numbers and keywords, which is what all languages share.
//
// It reads no language's grammar. Where it errs, a word has another colour; the text itself
// never changes. One pass, each character looked at once.

import { node } from "./tree.js";
/** @import { Tree } from "./tree.js" */

/** @typedef {{ comments: string[], quotes: string, keywords: Set<string> }} Language */

const HASH = ["#[^\\n]*"];
const SLASHES = ["//[^\\n]*", "/\\*[^]*?(?:\\*/|$)"];
const DASHES = ["--[^\\n]*"];

const C_WORDS =
  "auto break case char const continue default do double else enum extern float for goto if inline int long register return short signed sizeof static struct switch typedef union unsigned void volatile while bool true false nullptr NULL class public private protected virtual override template typename namespace using new delete this throw try catch operator final import package interface extends implements boolean byte abstract synchronized instanceof null var";
const JS_WORDS =
  "async await break case catch class const continue debugger default delete do else enum export extends false finally for from function get if implements import in instanceof interface let new null of package private protected public readonly return set static super switch this throw true try type typeof undefined var void while with yield number string boolean any unknown never as satisfies";
const PYTHON_WORDS =
  "False None True and as assert async await break case class continue def del elif else except finally for from global if import in is lambda match nonlocal not or pass raise return self try while with yield";
const RUST_GO_WORDS =
  "as async await break chan const continue crate defer dyn else enum extern fallthrough false fn for func go goto if impl import in interface let loop map match mod move mut nil package pub range ref return select self static struct super switch trait true type unsafe use var where while string int bool error i8 i16 i32 i64 u8 u16 u32 u64 usize f32 f64 str fun val when is object guard init protocol extension";
const SHELL_WORDS = "if then else elif fi for in do done while until case esac function return local export source alias echo cd exit set unset";
const SQL_WORDS =
  "select from where insert into values update set delete create table drop alter add join left right inner outer on group by order having limit offset as distinct and or not null is in like between union all case when then else end primary key foreign references index view with count sum avg min max";
const DATA_WORDS = "true false null yes no";
const RUBY_LUA_WORDS =
  "and begin break class def do else elseif elsif end ensure false for function if in local module next nil not or repeat require rescue return self super then true unless until when while yield";

/** @type {[string, string[], string, string][]} names, comments, quotes, keywords */
const FAMILIES = [
  ["c cpp c++ h hpp java cs csharp dart php glsl cuda", SLASHES, "\"'", C_WORDS],
  ["js javascript jsx ts typescript tsx mjs", SLASHES, "\"'`", JS_WORDS],
  ["py python python3 pyi", HASH, "\"'", PYTHON_WORDS],
  ["rust rs go golang swift kotlin kt scala zig", SLASHES, '"`', RUST_GO_WORDS],
  ["sh bash zsh shell console fish makefile make dockerfile", HASH, "\"'", SHELL_WORDS],
  ["yaml yml toml ini conf r", HASH, "\"'", DATA_WORDS],
  ["json jsonc json5 css scss less", SLASHES, "\"'", DATA_WORDS],
  ["ruby rb perl elixir", HASH, "\"'", RUBY_LUA_WORDS],
  ["sql", DASHES, "'\"", `${SQL_WORDS} ${SQL_WORDS.toUpperCase()}`],
  ["lua haskell hs", DASHES, "\"'", RUBY_LUA_WORDS],
];

/** @type {Map<string, { pattern: RegExp, keywords: Set<string> }>} */
const LANGUAGES = new Map(
  FAMILIES.flatMap(([names, comments, quotes, words]) => {
    const language = { pattern: patternOf(comments, quotes), keywords: new Set(words.split(" ")) };
    return names.split(" ").map((name) => /** @type {const} */ ([name, language]));
  }),
);

/**
 * @param {string[]} comments
 * @param {string} quotes
 */
function patternOf(comments, quotes) {
  const strings = [...quotes].map((quote) => `${quote}(?:[^${quote}\\\\${quote === "`" ? "" : "\\n"}]|\\\\[^])*${quote}?`);
  const long = quotes.includes("'") ? ['"""[^]*?(?:"""|$)', "'''[^]*?(?:'''|$)"] : [];
  const groups = [`(?<comment>${comments.join("|")})`, `(?<string>${[...long, ...strings].join("|")})`, "(?<number>\\b\\d[\\w.]*)", "(?<word>[A-Za-z_$][\\w$]*)"];
  return new RegExp(groups.join("|"), "g");
}

/**
 * Code as text and coloured spans; as it is where the language is not known.
 * @param {string} code
 * @param {string} name as written after the marks of a code block
 * @returns {Tree[]}
 */
export function highlight(code, name) {
  const language = LANGUAGES.get(name.toLowerCase());
  if (!language) {
    return [code];
  }
  /** @type {Tree[]} */
  const parts = [];
  let end = 0;
  for (const match of code.matchAll(language.pattern)) {
    const kind = kindOf(match, language.keywords);
    if (kind) {
      parts.push(code.slice(end, match.index), node("span", { class: `code-${kind}` }, [match[0]]));
      end = match.index + match[0].length;
    }
  }
  parts.push(code.slice(end));
  return parts;
}

/**
 * @param {RegExpExecArray} match
 * @param {Set<string>} keywords
 */
function kindOf(match, keywords) {
  const { comment, string, number, word } = match.groups ?? {};
  if (word !== undefined) {
    return keywords.has(word) ? "keyword" : null;
  }
  return comment !== undefined ? "comment" : string !== undefined ? "string" : number !== undefined ? "number" : null;
}
