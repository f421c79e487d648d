/** Shell completion, made of the commands as they are declared, so that it never lacks one. Pure. */

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

export interface CompletedOption {
  /** `--output`, with its dashes. */
  readonly long: string;
  /** `-o`; empty for none. */
  readonly short: string;
  readonly description: string;
  readonly takesValue: boolean;
  /** The values that it may have, when there are few. */
  readonly choices: readonly string[];
}

export interface CompletedCommand {
  /** From the program's name on: `config check`; empty for the program itself. */
  readonly path: string;
  readonly description: string;
  readonly options: readonly CompletedOption[];
  /** The first argument may be one of these words. */
  readonly words: readonly string[];
}

const PROGRAM = 'kube-proxy-ipvs';

/** The script for `source <(kube-proxy-ipvs completion bash)`, or for the shell's directory of completions. */
export function completionScript(shell: Shell, commands: readonly CompletedCommand[]): string {
  return { bash, zsh, fish }[shell](commands);
}

function flagsOf(options: readonly CompletedOption[]): string[] {
  return options.flatMap(({ long, short }) => (short === '' ? [long] : [long, short]));
}

/** One `case` arm per command: the words that may follow it. */
function bash(commands: readonly CompletedCommand[]): string {
  const arms = commands.map(({ path, options, words }) => {
    const body = `words=${quoted(words.join(' '))}; flags=${quoted(flagsOf(options).join(' '))}`;
    return `    ${quoted(path)}) ${body} ;;`;
  });
  const paths = commands.filter(({ path }) => path !== '').map(({ path }) => quoted(path));
  return `# bash completion of ${PROGRAM}: source <(${PROGRAM} completion bash)
_kube_proxy_ipvs() {
  local cur="\${COMP_WORDS[COMP_CWORD]}" prev="\${COMP_WORDS[COMP_CWORD-1]}" path='' word words flags i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="\${COMP_WORDS[i]}"
    case "\${path:+$path }$word" in
    ${paths.join('|')}) path="\${path:+$path }$word" ;;
    esac
  done
  case "$path:$prev" in
${valueArms(commands)}
  esac
  case "$path" in
${arms.join('\n')}
  esac
  if [[ "$cur" == -* ]]; then COMPREPLY=($(compgen -W "$flags" -- "$cur"))
  else COMPREPLY=($(compgen -W "$words" -- "$cur")); fi
}
complete -o default -F _kube_proxy_ipvs ${PROGRAM}
`;
}

/** What may follow an option: its choices, which differ from command to command, or a file's name. */
function valueArms(commands: readonly CompletedCommand[]): string {
  const valued = commands.flatMap(({ path, options }) =>
    options.filter(({ takesValue }) => takesValue).map((option) => ({ path, option })),
  );
  const arm = (patterns: readonly string[], reply: string): string =>
    `  ${patterns.join('|')}) COMPREPLY=($(compgen ${reply} -- "$cur")); return ;;`;
  const chosen = valued
    .filter(({ option }) => option.choices.length > 0)
    .map(({ path, option: { choices, ...option } }) => {
      const patterns = flagsOf([{ ...option, choices }]).map((flag) => quoted(`${path}:${flag}`));
      return arm(patterns, `-W ${quoted(choices.join(' '))}`);
    });
  const free = new Set(
    valued.filter(({ option }) => option.choices.length === 0).flatMap(({ option }) => flagsOf([option])),
  );
  return [
    ...chosen,
    arm(
      [...free].map((flag) => `*:${flag}`),
      '-f',
    ),
  ].join('\n');
}

function zsh(commands: readonly CompletedCommand[]): string {
  return `#compdef ${PROGRAM}
# zsh completion of ${PROGRAM}: source <(${PROGRAM} completion zsh), after compinit
autoload -U +X bashcompinit && bashcompinit
${bash(commands)}`;
}

function fish(commands: readonly CompletedCommand[]): string {
  const lines = commands.flatMap(({ path, options, words }) => {
    const condition = `-n ${fishQuoted(`__kube_proxy_ipvs_is ${fishQuoted(path)}`)}`;
    const described = words.map((word) => {
      const command = commands.find((one) => one.path === (path === '' ? word : `${path} ${word}`));
      const text = command === undefined ? '' : ` -d ${fishQuoted(command.description)}`;
      return `complete -c ${PROGRAM} ${condition} -f -a ${fishQuoted(word)}${text}`;
    });
    const flags = options.map(({ long, short, description, takesValue, choices }) => {
      const names = `-l ${long.slice(2)}${short === '' ? '' : ` -s ${short.slice(1)}`}`;
      const value = takesValue ? (choices.length === 0 ? ' -r' : ` -x -a ${fishQuoted(choices.join(' '))}`) : '';
      return `complete -c ${PROGRAM} ${condition} ${names}${value} -d ${fishQuoted(description)}`;
    });
    return [...described, ...flags];
  });
  const paths = commands.filter(({ path }) => path !== '').map(({ path }) => fishQuoted(path));
  return `# fish completion of ${PROGRAM}: ${PROGRAM} completion fish | source
function __kube_proxy_ipvs_is
  set -l path ''
  for word in (commandline -opc)[2..-1]
    set -l next (string trim -- "$path $word")
    contains -- $next ${paths.join(' ')}; and set path $next
  end
  test "$path" = "$argv[1]"
end
${lines.join('\n')}
`;
}

/** For bash and zsh. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function fishQuoted(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}
