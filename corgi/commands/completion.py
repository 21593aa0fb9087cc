"""Shell completion of `corgi`: commands, recipes, runs, files, and the options that the help of a command lists."""

from collections.abc import Sequence

from corgi.settings.errors import SettingsError

SHELLS = ("bash", "zsh", "fish")

_BASH = r"""_corgi() {
  local word="${COMP_WORDS[COMP_CWORD]}" command="${COMP_WORDS[1]}"
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "@NAMES@ completion --help --version" -- "$word"))
  elif [ "$command" = completion ]; then
    COMPREPLY=($(compgen -W "@SHELLS@" -- "$word"))
  elif [[ "$word" == -* ]]; then
    COMPREPLY=($(compgen -W "$(corgi "$command" --help 2> /dev/null | grep -oE -- '--[a-z][a-z-]+' | sort -u)" -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}
complete -o filenames -F _corgi corgi
"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n" + _BASH
_FISH = r"""complete -c corgi -f -n __fish_use_subcommand -a "@NAMES@ completion"
complete -c corgi -f -n "__fish_seen_subcommand_from completion" -a "@SHELLS@"
complete -c corgi -F -n "not __fish_use_subcommand"
complete -c corgi -n "not __fish_use_subcommand; and string match -q -- '-*' (commandline -ct)" -a "(corgi (commandline -opc)[2] --help 2> /dev/null | string match -ar -- '--[a-z][a-z-]+' | sort -u)"
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def script_of(shell: str = "", *, names: Sequence[str]) -> str:
    """Return the completion script of a shell, for `source <(corgi completion bash)`.

    Raises:
        SettingsError: there is no completion script for that shell.

    """
    if shell not in _SCRIPTS:
        raise SettingsError(
            f"completion {shell!r} is not known; nothing was printed; name one of {', '.join(SHELLS)}"
        )
    return _SCRIPTS[shell].replace("@NAMES@", " ".join(names)).replace("@SHELLS@", " ".join(SHELLS))
