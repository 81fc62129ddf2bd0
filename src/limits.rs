//! Every bound of the program, each with its reason. Sizes are bytes unless the name says otherwise.

use std::time::Duration;

/// Largest request or definition text that a person may hand in as a task: what a model can read at all.
pub const MAX_TASK_BYTES: usize = 1024 * 1024;

/// Most events in one append: a model answer with [`MAX_TOOL_CALLS_PER_ANSWER`] calls and their results fits twice.
pub const MAX_EVENTS_PER_APPEND: usize = 1024;
/// Largest single event body. A tool result holds at most one image of [`MAX_MEDIA_BYTES`] in base64.
pub const MAX_EVENT_BYTES: usize = 24 * 1024 * 1024;
/// Appends that may wait for the writer before callers are held back.
pub const WRITER_QUEUE: usize = 256;
/// Most appends that one transaction carries: bounds the time until the first of them is acknowledged.
pub const GROUP_COMMIT_MAX: usize = 128;
/// Bodies that one transaction carries before it takes no further append: one largest event, or a burst of usual ones.
pub const GROUP_COMMIT_BYTES: usize = 24 * 1024 * 1024;
/// Events read from the store in one page.
pub const SCAN_PAGE: usize = 512;
/// Bytes of events after which one read of the store ends; the last of them may be one of [`MAX_EVENT_BYTES`].
pub const SCAN_BYTES: usize = 1024 * 1024;
/// Pages in the write-ahead log after which a checkpoint is started off the writer thread (SQLite's own default).
pub const CHECKPOINT_PAGES: u32 = 1000;
/// Bytes of the write-ahead log that stay allocated when it starts over: overwriting syncs faster than growing.
pub const LOG_KEPT_BYTES: usize = 32 * 1024 * 1024;
/// Pages that one connection to the database caches: the indexes' inner pages of a million events.
pub const PAGE_CACHE_BYTES: usize = 8 * 1024 * 1024;

/// Tool calls taken from one model answer; the rest are dropped, and the model is told how many. Real answers stay below 30.
pub const MAX_TOOL_CALLS_PER_ANSWER: usize = 128;
/// Largest arguments of one tool call: a whole source file in one `write`.
pub const MAX_TOOL_INPUT_BYTES: usize = 4 * 1024 * 1024;
/// Largest streamed model answer, all blocks together.
pub const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// Blocks of one model answer: a call and its result each fit into one append, see [`MAX_EVENTS_PER_APPEND`].
pub const MAX_ANSWER_BLOCKS: usize = 256;
/// Largest single line of an event stream: one whole tool call in one chunk, escaped.
pub const MAX_SSE_LINE_BYTES: usize = 16 * 1024 * 1024;
/// Largest error body that is read from a model server.
pub const MAX_ERROR_BODY_BYTES: usize = 64 * 1024;

/// Depth to which the grammar of constrained calls goes into a tool's schema; deeper down, anything is JSON.
pub const GRAMMAR_DEPTH: usize = 16;
/// Schemas within one tool's schema that its grammar follows: one that refers to itself would never end.
pub const GRAMMAR_NODES: usize = 1000;
/// Longest list of items that a grammar counts; servers write a rule for each, and refuse some thousand.
pub const GRAMMAR_ITEMS: u64 = 64;
/// Schemas of all tools' arguments together in one grammar; of tools beyond it only names are held to.
pub const GRAMMAR_BYTES: usize = 128 * 1024;
/// Parts of one constrained answer: a model that repeats itself would go on until its tokens end.
pub const GRAMMAR_PARTS: usize = 16;

/// Time to reach a model server.
pub const MODEL_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time from the request to the first byte of the answer's body or a keep-alive: a local model reads a long prompt for minutes.
pub const MODEL_FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(600);
/// Silence allowed within a streamed answer, comments counted as life.
pub const MODEL_IDLE_TIMEOUT: Duration = Duration::from_secs(180);
/// Wait for the end of a stream whose answer is complete already: some servers never send the closing mark.
pub const MODEL_TAIL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that a local model server has to say which models it has, when nobody named one.
pub const LOCAL_PROBE_TIMEOUT: Duration = Duration::from_millis(300);
/// Largest list of models that is read from a server.
pub const MAX_MODEL_LIST_BYTES: usize = 1024 * 1024;
/// Largest script of a scripted model: a recorded session of a thousand turns with whole files in it.
pub const MAX_SCRIPT_BYTES: usize = 16 * 1024 * 1024;
/// Model requests tried for one answer before the turn is given up.
pub const MODEL_ATTEMPTS: u32 = 6;
/// Requests tried when the model answers nothing at all: asking the same again seldom helps.
pub const EMPTY_ANSWER_ATTEMPTS: u32 = 3;
/// First back-off between two tries; doubles up to [`MODEL_BACKOFF_MAX`].
pub const MODEL_BACKOFF: Duration = Duration::from_millis(500);
/// Longest back-off of our own; a server's `retry-after` may ask for more.
pub const MODEL_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Longest `retry-after` that is obeyed; beyond it the turn is given up and says when to come back.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Model requests per turn unless the user says otherwise: stops a loop long before it is expensive.
pub const DEFAULT_MAX_TURNS: u32 = 200;
/// The same call with the same result this many times in a row is no progress.
pub const NO_PROGRESS_REPEATS: usize = 5;
/// Of them the model is told after as many, once, before its turn is stopped.
pub const REPETITION_TOLD: usize = 3;
/// Calls that may take turns in a repetition: longer circles are not told from work.
pub const REPETITION_CALLS: usize = 3;
/// Characters of a call that repeats which the model is shown again.
pub const REPETITION_CHARS: usize = 160;
/// The model is told of its budget when less than one part of so many is left, and again.
pub const BUDGET_TOLD: [u64; 2] = [4, 10];
/// Tokens of a context in which the descriptions of tools and the instructions of files are cut to what fits.
pub const SMALL_WINDOW: u64 = 16_384;
/// Characters that the description of a client's tool keeps where it is cut.
pub const SHORT_DESCRIPTION: usize = 160;
/// Time that a judge has for one call: longer than a small model takes, shorter than a person waits.
pub const JUDGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest call that is put to a judge; a larger one asks.
pub const JUDGED_CALL_BYTES: usize = 16 * 1024;
/// Largest answer of a judge that is read: a sentence, and the thoughts that some cannot be told to leave out.
pub const JUDGEMENT_BYTES: usize = 64 * 1024;
/// Calls that are judged at the same time.
pub const JUDGED_TOGETHER: usize = 4;
/// Tokens that a judge may answer with: it may think first.
pub const JUDGE_TOKENS: u32 = 2048;
/// Requests for one summary of a full conversation, before it is made without the model.
pub const COMPACTION_ATTEMPTS: u32 = 3;
/// Least room for what takes the place of a conversation: fewer tokens cannot hold a task.
pub const COMPACTION_MIN_TOKENS: u64 = 150;
/// Context of a model of which nobody has said it: what the smaller ones of today have.
pub const UNKNOWN_WINDOW: u64 = 32_768;
/// Bytes kept of the user's first and last message each, word for word, over all compactions.
pub const KEPT_WORDS_BYTES: usize = 16 * 1024;
/// Changed files that are named after a compaction.
pub const KEPT_FILES: usize = 64;
/// Instructions of clients that are kept over compactions, the last ones.
pub const KEPT_INSTRUCTIONS: usize = 16;
/// Time that a model server has to say how much its model can read, before the first request.
pub const WINDOW_TIMEOUT: Duration = Duration::from_secs(2);
/// Times that a server is asked for it while it does not say: some know it once the model is loaded.
pub const WINDOW_ASKS: u32 = 3;
/// Time that whoever is asked over HTTP has to say whether a call may run: a person who looks at a telephone.
pub const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest command line that permission rules look into; a longer one asks.
pub const JUDGED_COMMAND_BYTES: usize = 16 * 1024;
/// Tokens that an answer may have unless the agent says otherwise.
pub const DEFAULT_MAX_TOKENS: u32 = 16_384;
/// Largest budget in cents: its picodollars fit into 64 bits, and into the store's signed ones.
pub const MAX_BUDGET_CENTS: u64 = 900_000_000;
/// How often an input is admitted anew because the session moved meanwhile. Each time somebody else came first.
pub const ADMISSION_ATTEMPTS: u32 = 1000;
/// Most inputs of one request, and of a session's beginning.
pub const MAX_INPUTS: usize = 1000;

/// Largest frame between host and guest: an image or PDF of [`MAX_MEDIA_BYTES`] in base64, and its envelope.
pub const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;
/// Tool calls that a guest runs at the same time.
pub const GUEST_PARALLEL_CALLS: usize = 16;
/// Time for the sandbox to come up: 7 ms here, a thousand times that on a host that swaps.
pub const LAUNCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that a cancelled or late call has to end by itself before its guest is killed.
pub const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// Default deadline of a `bash` call (the hosted tool's own default).
pub const BASH_TIMEOUT_MS: u64 = 120_000;
/// Longest deadline that a `bash` call may ask for.
pub const BASH_TIMEOUT_MAX_MS: u64 = 3_600_000;
/// Deadline of a file tool: a grep over a large tree on a cold disk.
pub const FILE_TOOL_TIMEOUT_MS: u64 = 60_000;
/// Time beyond a call's own deadline in which its guest must answer, or is ended: a fork bomb is killed within ten seconds on
/// a busy machine, a disk filler within twenty.
pub const ANSWER_GRACE: Duration = Duration::from_secs(30);

/// Characters of tool output that go to the model; a longer output is kept in a file (the protocol's bound).
pub const TOOL_OUTPUT_CHARS: usize = 100_000;
/// Characters shown of an output that went to a file: head and tail, half each.
pub const TOOL_PREVIEW_CHARS: usize = 8_000;
/// Output kept of one call, in its file; what comes after is counted and dropped.
pub const TOOL_SPOOL_BYTES: usize = 64 * 1024 * 1024;
/// Largest text file that `read` shows whole, and that `edit` changes.
pub const MAX_TEXT_FILE_BYTES: usize = 16 * 1024 * 1024;
/// Largest image or PDF that `read` hands to the model (base64 makes a third more of it).
pub const MAX_MEDIA_BYTES: usize = 8 * 1024 * 1024;
/// Pages of a PDF that a model is given as a document: more are refused by the providers, and the whole request with them.
pub const DOCUMENT_PAGES: usize = 100;
/// Time to make text of a PDF: ten times what a book of a thousand pages takes.
pub const PDF_TIME: Duration = Duration::from_secs(20);
/// Largest stream of a PDF, unpacked: the program of a page with a map on it has some megabytes.
pub const PDF_STREAM_BYTES: usize = 32 * 1024 * 1024;
/// All streams of a PDF that are unpacked, the same one again counted again.
pub const PDF_UNPACKED_BYTES: usize = 512 * 1024 * 1024;
/// Streams of objects that are kept while a PDF is read: without its text and its images, a large file has some megabytes.
pub const PDF_KEPT_BYTES: usize = 64 * 1024 * 1024;
/// Objects of a PDF: the largest files of standards have half of it.
pub const PDF_OBJECTS: usize = 1_000_000;
/// Things in one object of a PDF: a table of all widths of a large font has 50,000.
pub const PDF_ITEMS: usize = 500_000;
/// Objects within objects of a PDF, references to references, and levels of its tree of pages.
pub const PDF_NESTING: usize = 48;
/// Pages of a PDF that are looked for.
pub const PDF_PAGES: usize = 10_000;
/// Steps of all pages' programs, and characters that they show: a page has some thousand of each.
pub const PDF_OPERATORS: usize = 20_000_000;
/// Things that stand before one operator; real ones take six.
pub const PDF_OPERANDS: usize = 64;
/// States that a page's program keeps at once (the format's own bound is 28).
pub const PDF_STATES: usize = 256;
/// Forms within forms.
pub const PDF_FORMS: usize = 12;
/// Fonts of a PDF that are kept once they were read; each may have a map of [`PDF_CMAP_ENTRIES`].
pub const PDF_FONTS: usize = 64;
/// Entries of a font's map: all characters of the largest scripts.
pub const PDF_CMAP_ENTRIES: usize = 70_000;
/// Pieces of text on one page: one for each letter of a page of the smallest print.
pub const PDF_FRAGMENTS: usize = 200_000;
/// Text of a PDF after which no further page is read: a thousand full pages.
pub const PDF_TEXT_BYTES: usize = 8 * 1024 * 1024;
/// Paths that `glob` returns.
pub const GLOB_RESULTS: usize = 200;
/// Characters shown of one line by `grep` and `read`: minified files.
pub const MAX_LINE_CHARS: usize = 2_000;

/// All `AGENTS.md` text in a prompt together (the convention of other agents).
pub const AGENTS_MD_BYTES: usize = 32 * 1024;
/// Time that a shutdown gives running work before it is dropped: it resumes like after a crash.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Previews that are held for a session's feeds; older ones are lost, events never are. Half a second of the fastest models,
/// and 25 KB.
pub const PREVIEW_QUEUE: usize = 256;
/// Time that the state of a session is kept which rests and has no sandbox: folding its log again takes a millisecond, and its
/// whole conversation is in it.
pub const DRIVER_REST: Duration = Duration::from_secs(30);
/// Files looked at for the closing summary: a second on a large tree, and nobody waits longer for a number.
pub const CHANGES_LOOKED_AT: usize = 50_000;
/// Bytes of Git's lists that are read for that summary: those of a large repository together are a tenth, and a session may
/// have written others.
pub const CHANGES_LIST_BYTES: u64 = 256 * 1024;
/// Largest agent file: a system prompt of its own bound, in the widest characters.
pub const MAX_AGENT_FILE_BYTES: u64 = 1024 * 1024;
/// Text that one `grep` gathers before it stops: what the model is shown of it is far less.
pub const GREP_COLLECTED_BYTES: usize = 8 * 1024 * 1024;
/// Longest line that `grep` looks through, and largest file in which it looks for what spans lines: eight threads of it are
/// a part of the memory that a session has.
pub const GREP_LINE_BYTES: usize = 32 * 1024 * 1024;
/// Largest file of ignore rules that is obeyed; what is larger or no regular file is no list that anybody wrote.
pub const IGNORE_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// Time that a shell has to come back after its command was killed, before it is replaced.
pub const SHELL_RETURN_GRACE: Duration = Duration::from_secs(1);
/// Most model requests per turn that a user may ask for: beyond it, the turn is a loop that nobody watches.
pub const MAX_TURNS: u32 = 10_000;
/// Files and directories of one sealed tree: a large repository with its build output; a look at each takes a second.
pub const DISK_ENTRIES: usize = 1_000_000;
/// Directories within directories of a sealed tree: each level of the walk holds one open.
pub const DISK_DEPTH: usize = 256;
/// Directories between a workspace and a protected path: deeper ones are fixtures and dependencies.
pub const PROTECT_DEPTH: usize = 6;
/// Entries of a workspace that are looked at for protected paths: 7 ms at the start of a sandbox, shallow ones first.
pub const PROTECT_ENTRIES: usize = 20_000;
/// Mounts that hold protected paths: the kernel's own bound is 100,000, and each costs 30 µs at the start.
pub const PROTECT_MOUNTS: usize = 500;
/// Bytes of an unpacked image's config.json: those of real images have a few thousand.
pub const IMAGE_DESCRIPTION: u64 = 1 << 20;
/// Sandboxes that are up before their sessions are given anything: each has a megabyte, and its processes.
pub const WARM_SANDBOXES: usize = 4;
/// Time after which one of them may lose its place: who creates a session and does not use it is not about to.
pub const WARM_TIME: Duration = Duration::from_secs(60);
/// Names that are tried for a file that is set aside: whoever makes it a hundred times over is named, and the file with him.
pub const SET_ASIDE: u32 = 100;
/// Protected files that one tool result speaks of; the others are in the log.
pub const MADE_TOLD: usize = 8;
/// Largest pointer or config of a git directory outside of its workspace that is read: git's own are some hundred bytes.
pub const GIT_FILE_BYTES: u64 = 64 * 1024;
/// Largest profile file: the built-in one is 20 kB.
pub const MAX_PROFILE_BYTES: u64 = 256 * 1024;
/// Time that the processes of a session have to be gone before its control group is left for the next start to sweep.
pub const CGROUP_REMOVAL: Duration = Duration::from_secs(2);
/// How often this program's processes are moved out of a control group that is to hand out limits: one that was forked between
/// the list and the move is found by the next look.
pub const CGROUP_MOVES: usize = 5;
/// How often a guest looks at its own memory, processes and disk while a command runs: a hog fills some hundred megabytes meanwhile.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(50);
/// Looks at memory after which what a session has for certain is added up, file by file: once in a second.
pub const KEPT_LOOKS: u32 = 20;
/// How often a command that has an idle limit is looked at for a sign of life: each look reads `/proc`.
pub const IDLE_LOOK: Duration = Duration::from_millis(500);
/// As [`WATCH_INTERVAL`], while no command runs: only jobs in the background can do harm.
pub const WATCH_INTERVAL_IDLE: Duration = Duration::from_secs(1);
/// Processes that the guest keeps for itself when its programs have used up theirs.
pub const GUEST_PROCESSES: u64 = 64;
/// Free space below which a command that fills the disk is ended, whatever its limit: the host needs it.
pub const DISK_FLOOR_BYTES: u64 = 256 * 1024 * 1024;
/// Content of the user's own workspace that one seal copies where blocks cannot be shared: the first call that writes waits
/// for it, once for all sessions there.
pub const SEAL_DIRECT_BYTES: u64 = 1024 * 1024 * 1024;
/// Files of the user's own workspace that a seal looks at: half a second after each call that writes.
pub const SEAL_DIRECT_FILES: usize = 200_000;

/// Connections that one session has open at once: a package manager that fetches in parallel uses 16 to 50.
pub const EGRESS_CONNECTIONS: usize = 256;
/// Questions of a guest that the host works on at once; the guest waits with the next ones.
pub const EGRESS_ASKS: usize = 64;
/// Largest message between guest and host about the network: a name, a port, and a refusal in words.
pub const EGRESS_MESSAGE_BYTES: usize = 4096;
/// Time to find the addresses of a name: two tries of a resolver that waits five seconds.
pub const EGRESS_RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to reach one address; the next is tried then.
pub const EGRESS_DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried: big services have more, and one of eight answers.
pub const EGRESS_ADDRESSES: usize = 8;
/// Time that the guest gives the host for an answer: more than a lookup and a dial of every address take.
pub const EGRESS_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Time that a client has to finish the head of a request, or its TLS hello, once it has begun one.
pub const EGRESS_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest head of an HTTP request, and largest TLS hello, that is looked at: servers take 8 to 32 KiB.
pub const EGRESS_HEAD_BYTES: usize = 32 * 1024;
/// Bytes that a pump moves at once, in each direction.
pub const EGRESS_PUMP_BYTES: usize = 64 * 1024;
/// Names that one session can hold synthetic addresses for; none is ever given to another name.
pub const EGRESS_NAMES: usize = 16_384;
/// Places that are counted apart, and refusals that are told apart, between two reports of a door.
pub const EGRESS_REPORTED: usize = 64;
/// Refusals that are added to one tool result; the others are in the log.
pub const EGRESS_TOLD: usize = 8;
/// Time between two commits of what is refused in the background: a job that tries in a loop must not fill the log.
pub const EGRESS_QUIET: Duration = Duration::from_secs(1);
/// Time for one page, redirects and all: what a person waits for a page.
pub const WEB_FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Time to reach a server of the web.
pub const WEB_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest page that is read: in base64 it still fits a frame to the guest, see [`MAX_FRAME_BYTES`].
pub const WEB_PAGE_BYTES: usize = 10 * 1024 * 1024;
/// Redirects that are followed for one page: what browsers allow is twice that.
pub const WEB_REDIRECTS: usize = 10;
/// Longest address of a page: longer ones carry data, and servers refuse them at 8 KiB.
pub const WEB_URL_CHARS: usize = 4096;
/// Part of a `robots.txt` that is read (RFC 9309 asks for at least this).
pub const WEB_ROBOTS_BYTES: usize = 500 * 1024;
/// Sites whose `robots.txt` is remembered.
pub const WEB_ROBOTS_KEPT: usize = 1000;
/// Time for which a page is not asked for again.
pub const WEB_CACHE_AGE: Duration = Duration::from_secs(15 * 60);
/// Pages that are remembered, in bytes, all sessions together.
pub const WEB_CACHE_BYTES: usize = 50 * 1024 * 1024;
/// Depth of a page's elements up to which its structure is kept: browsers keep 512, and a reader's time grows with its square.
pub const WEB_PAGE_DEPTH: usize = 256;
/// Elements of a page that are looked at: the longest pages of encyclopedias have 50,000.
pub const WEB_PAGE_ELEMENTS: usize = 200_000;
/// Time for one search.
pub const WEB_SEARCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer of a search provider, or of the user's own search command.
pub const WEB_SEARCH_BYTES: usize = 2 * 1024 * 1024;
/// Hits of one search that the model sees.
pub const WEB_SEARCH_HITS: usize = 10;
/// Characters of one hit's text that the model sees.
pub const WEB_SEARCH_HIT_CHARS: usize = 1000;

/// Time to connect with an MCP server, agree on a protocol and hear which tools it has: a program that a package manager
/// fetches first takes its time, and one that is silent to the newest protocol is asked in the older one after ten seconds.
pub const MCP_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence of an MCP server during a call, reports of progress counted as life; `timeout_seconds` of the server in the
/// config file changes it.
pub const MCP_CALL_TIMEOUT: Duration = Duration::from_secs(300);
/// Time of one call of an MCP server's tool, however much progress it reports.
pub const MCP_CALL_TOTAL: Duration = Duration::from_secs(3600);
/// Time for what is said to an MCP server besides calls: that one is cancelled, that a session ends.
pub const MCP_CONTROL_TIMEOUT: Duration = Duration::from_secs(5);
/// Reports of progress that wait to be shown; older ones are of no interest any more.
pub const MCP_REPORTS: usize = 16;
/// Largest message of an MCP server: a result with one image of [`MAX_MEDIA_BYTES`] in base64, and its envelope.
pub const MCP_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// Text of one result that is kept, at the end of a frame to the guest, where its characters may take two bytes.
pub const MCP_TEXT_BYTES: usize = 6 * 1024 * 1024;
/// Blocks of one result that are looked at.
pub const MCP_BLOCKS: usize = 256;
/// Images and documents of one result that the model sees: more do not fit one event.
pub const MCP_MEDIA_BYTES: usize = 16 * 1024 * 1024;
/// Tools of one server; the protocol lets an agent have 256 in all.
pub const MCP_TOOLS: usize = 256;
/// All definitions of one server's tools together: they lie in one event, and no context holds more.
pub const MCP_LIST_BYTES: usize = 2 * 1024 * 1024;
/// Pages of one server's list of tools: a server that never ends is left with what it said until then.
pub const MCP_PAGES: usize = 64;
/// Largest description of a tool in characters; what others write of their tools has some hundred.
pub const MCP_DESCRIPTION_CHARS: usize = 8 * 1024;
/// Largest schema of a tool's input: the largest of public servers have 20 KiB.
pub const MCP_SCHEMA_BYTES: usize = 64 * 1024;
/// Depth of a schema: model servers refuse deeper ones, and refuse the whole request with them.
pub const MCP_SCHEMA_DEPTH: usize = 32;
/// Times that a broken stream of an answer is taken up again.
pub const MCP_STREAM_RETRIES: usize = 3;
/// Redirects within a server's own origin.
pub const MCP_REDIRECTS: usize = 3;
/// Characters of a server's own words in an error.
pub const MCP_SAID_CHARS: usize = 500;
/// Largest document or answer of an authorization server; real ones have some 4 KiB.
pub const MCP_OAUTH_BYTES: usize = 256 * 1024;
/// Time of one request to an authorization server.
pub const MCP_OAUTH_TIMEOUT: Duration = Duration::from_secs(10);
/// Time of a whole login, which is some six requests: it leaves a server the time to be connected with.
pub const MCP_LOGIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Time after a failed login in which it is not tried again: sessions by the dozen would ask an authorization server that
/// has just refused.
pub const MCP_LOGIN_PAUSE: Duration = Duration::from_secs(10);
/// Scopes that are asked for at once; a server that wants more with every request is left with these.
pub const MCP_OAUTH_SCOPES: usize = 64;
/// Largest token: it goes into a header, and servers take 8 to 16 KiB of those.
pub const MCP_TOKEN_BYTES: usize = 16 * 1024;
/// Time before its end at which a token is renewed, or a tenth of its life if that is less: requests take a while.
pub const MCP_TOKEN_MARGIN: Duration = Duration::from_secs(30);
/// Tokens of one server that are hidden in what it says: it may quote one that was renewed meanwhile.
pub const MCP_SECRETS_HIDDEN: usize = 32;
/// Life of the statement by which a client with a key shows who it is: clocks differ by less.
pub const MCP_ASSERTION_SECONDS: i64 = 120;
/// Questions of a server that are answered during one call; more have no end.
pub const MCP_QUESTIONS: usize = 16;
/// Share of the model's context that the tools of MCP servers may take together, as its denominator; where they would take
/// more, the model searches for them.
pub const MCP_CONTEXT_SHARE: u64 = 10;
/// Tools that one search loads.
pub const MCP_FOUND: usize = 5;
/// Programs of MCP servers that one sandbox starts, those that have ended counted: twice what an agent can have, thrice over.
pub const MCP_PROGRAMS: usize = 128;
/// What is kept of the errors that a server's program prints: its last words say why it ended.
pub const MCP_PROGRAM_SAID: usize = 4096;

/// Largest file whose difference is shown line by line; beyond it nobody reads, and the comparison takes seconds.
pub const DIFF_FILE_BYTES: u64 = 1024 * 1024;
/// Text of one difference, all files together and both sides.
pub const DIFF_BYTES: u64 = 32 * 1024 * 1024;

/// Packages of one environment, all managers together: what a person lists; what they need besides is not counted.
pub const MAX_PACKAGES: usize = 500;
/// Characters of one package: a Go module's path and its version.
pub const MAX_PACKAGE_CHARS: usize = 200;
/// Size of an environment's packages: a machine-learning framework with its own CUDA is 6 GiB. `max_mib` of
/// `[package_managers]` in the config file changes it.
pub const PACKAGES_MAX_MIB: u64 = 16 * 1024;
/// Time for all packages of an environment: an hour of compiling crates on a small machine. `max_minutes` changes it.
pub const PACKAGES_MAX_MINUTES: u64 = 60;
/// Time without a byte from a registry, a line of output or work of the processor, after which a package manager hangs:
/// longer than their own patience. `max_silence_seconds` changes it.
pub const PACKAGES_MAX_SILENCE_SECONDS: u64 = 120;
/// How often a build is looked at: its size, its time, its silence.
pub const PACKAGES_WATCH_INTERVAL: Duration = Duration::from_millis(200);
/// Time for which what interpreters say of themselves is believed: from a session's creation to the start of its sandbox.
pub const PACKAGES_KEY_AGE: Duration = Duration::from_secs(10);
/// Log that is kept of one build; a compiler's warnings fill some megabytes.
pub const PACKAGES_LOG_BYTES: u64 = 32 * 1024 * 1024;
/// Last lines of a log that an error shows: a package manager says what was wrong at the end.
pub const PACKAGES_LOG_LINES: usize = 12;
/// Packages that a lock file lists: what `npm` needs for one large application is some thousands.
pub const PACKAGES_RESOLVED: usize = 50_000;
/// Largest JSON body of a request: the protocol's bound.
pub const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;
/// Time for a request's body to arrive: 32 MiB over a bad line.
pub const REQUEST_BODY_TIMEOUT: Duration = Duration::from_secs(120);
/// Time for a request's head to arrive, and for a kept connection to say something again.
pub const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Largest head of a request; a cursor and a key take one of them.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;
/// Most headers of a request; the official clients send about 20.
pub const MAX_HEADERS: usize = 100;
/// Most connections at once; further ones wait to be accepted. Below the usual limit of open files.
pub const MAX_CONNECTIONS: usize = 4096;
/// Time that open connections have to finish when the server stops.
pub const CONNECTION_GRACE: Duration = Duration::from_secs(5);
/// Time in which a connection that has something to be sent must take a part of it; then it is closed. Memory for what waits
/// is [`MAX_HEADER_BYTES`] and one frame.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Silence after which an event stream says that it is alive: proxies close at 60 s, the official clients at 600 s.
pub const STREAM_PING: Duration = Duration::from_secs(15);
/// Frames that are kept for the connections of one session; one that is further behind reads the store.
pub const STREAM_FRAMES: usize = 256;
/// Largest frame that is kept for all connections; a larger one is read by each from the store.
pub const SHARED_FRAME_BYTES: usize = 16 * 1024;
/// Events that a connection reads from the store at once.
pub const STREAM_CATCH_UP: usize = 16;
/// Events that a list which goes down reads at once: all of them are held, however large they are.
pub const DESCENT_PAGE: usize = 64;
/// Bytes after which a page of events is full, whatever its limit: what a client reads at once without harm.
pub const EVENTS_PAGE_BYTES: usize = 16 * 1024 * 1024;
/// Events that a session may be created with (the protocol's bound).
pub const MAX_INITIAL_EVENTS: usize = 50;
/// Blocks of one message, and pieces of one search result (the protocol's bound for instructions).
pub const MAX_CONTENT_BLOCKS: usize = 1000;
/// Tries of a change that names no version, each upon what another has changed first; further ones would starve others.
pub const RECORD_CHANGE_ATTEMPTS: usize = 16;
/// Largest uploaded file: that of the hosted service.
pub const MAX_FILE_BYTES: u64 = 500 * 1024 * 1024;
/// Files that one session may be given (the protocol's bound).
pub const MAX_SESSION_FILES: usize = 500;
/// Resources of all kinds that one session may be created with: its files, and some repositories.
pub const MAX_SESSION_RESOURCES: usize = MAX_SESSION_FILES + 16;
/// Repositories that one session may be created with; each is cloned before its first tool runs.
pub const MAX_SESSION_REPOSITORIES: usize = 16;
/// Longest URL of a repository: what servers take.
pub const MAX_REPOSITORY_URL_BYTES: usize = 2048;
/// Longest name of a branch: git keeps it as the name of a file.
pub const MAX_BRANCH_BYTES: usize = 244;
/// Longest token: signed ones of the usual services have some hundred characters.
pub const MAX_REPOSITORY_TOKEN_BYTES: usize = 1024;
/// Size of a repository, once as it is kept for all sessions and once as the session has it: 99 of 100 have less than a
/// GiB. `max_mib` of `[repositories]` in the config file changes it.
pub const REPOSITORY_MAX_MIB: u64 = 8 * 1024;
/// Time to clone one: 8 GiB over a slow line. `max_minutes` changes it.
pub const REPOSITORY_MAX_MINUTES: u64 = 30;
/// Time in which a git server says less than a few bytes a second, after which it hangs. `max_silence_seconds` changes it.
pub const REPOSITORY_MAX_SILENCE_SECONDS: u64 = 60;
/// What is kept of what git says: its last words name the cause.
pub const REPOSITORY_SAID_BYTES: usize = 16 * 1024;
/// Repositories that are kept ready for the next session; those that were used longest ago go first.
pub const REPOSITORIES_KEPT: usize = 64;
/// Longest path in bytes at which a session may be given a file, and the longest name in it: what the kernel takes, less
/// what lies above.
pub const MAX_MOUNT_PATH_BYTES: usize = 1024;
/// See [`MAX_MOUNT_PATH_BYTES`].
pub const MAX_PATH_NAME_BYTES: usize = 255;
/// Files that one session hands out: what a person looks through.
pub const MAX_OUTPUTS: usize = 1000;
/// Bytes of all files that one session hands out.
pub const MAX_OUTPUT_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Files that are named when they could not be handed out.
pub const OUTPUTS_TOLD: usize = 8;
/// Files that one request may refer to in what it says (the protocol's bound).
pub const MAX_ATTACHED_FILES: usize = 100;
/// Bytes of all files that a session's conversation refers to: in base64, what a model's provider takes in one request.
pub const MAX_ATTACHED_BYTES: u64 = 20 * 1024 * 1024;
/// How often the bytes of files whose time is over are looked for: the shortest time is an hour.
pub const EXPIRY_INTERVAL: Duration = Duration::from_secs(15 * 60);
/// Silence allowed within an upload.
pub const UPLOAD_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest file name in characters that is kept: what the usual file systems hold.
pub const MAX_FILE_NAME_CHARS: usize = 255;
/// Characters of a skill's name, of its description and of what it says of compatibility (the format's bounds).
pub const MAX_SKILL_NAME_CHARS: usize = 64;
/// See [`MAX_SKILL_NAME_CHARS`].
pub const MAX_SKILL_DESCRIPTION_CHARS: usize = 1024;
/// See [`MAX_SKILL_NAME_CHARS`].
pub const MAX_SKILL_COMPATIBILITY_CHARS: usize = 500;
/// Largest `SKILL.md`: fifty times what the format recommends for one, and more than a model reads at once.
pub const MAX_SKILL_MD_BYTES: usize = 1024 * 1024;
/// Largest head of one: all fields at their bounds, in four bytes a character.
pub const MAX_SKILL_HEAD_BYTES: usize = 32 * 1024;
/// Bytes of all files of a skill, and of an upload of one: those of the hosted service.
pub const MAX_SKILL_BYTES: u64 = 30 * 1024 * 1024;
/// Files and directories of a skill: what a person looks through. Each is a name in every session that has it.
pub const MAX_SKILL_ENTRIES: usize = 1000;
/// Directories above one another in a skill.
pub const MAX_SKILL_DEPTH: usize = 16;
/// Longest path within a skill: what the kernel takes, less what lies above.
pub const MAX_SKILL_PATH_BYTES: usize = 1024;
/// How much smaller a file may be packed than it is. Text reaches 20, and zeros 1000.
pub const MAX_SKILL_RATIO: u64 = 100;
/// Up to this size, a file may be packed as small as it likes: it can do no harm.
pub const SKILL_RATIO_FREE_BYTES: u64 = 1024 * 1024;
/// Skills of one session (the protocol's bound), and skills that are looked for on this machine.
pub const MAX_SESSION_SKILLS: usize = 500;
/// What is wrong with the skills that one repository brings, in sentences of the log.
pub const SKILLS_PASSED_OVER: usize = 20;
/// Entries of a directory of skills that are looked at: more is no directory of skills.
pub const MAX_SKILLS_DIRECTORY: usize = 2000;
/// Bytes of the system prompt that tell of skills: 20 with whole descriptions, some hundred with short ones.
pub const SKILLS_PROMPT_BYTES: usize = 24 * 1024;
/// Bytes of skills that a session keeps in mind word for word, whatever becomes of its conversation: three at the
/// largest that the format recommends. The ones that were read last stay.
pub const KEPT_SKILLS_BYTES: usize = 64 * 1024;
