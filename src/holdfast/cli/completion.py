"""``holdfast completion SHELL``."""

import click
from click.shell_completion import get_completion_class

from holdfast.cli.main import COMPLETION_VARIABLE, root

# click's own hands bash's words over as bash has cut them: at `@`, `:` and `=`, so that `app/model@v3` would be three
BASH = """\
_holdfast_completion() {
    local line=${COMP_LINE:0:COMP_POINT} rest index word cut response type value paths=0
    local -a words=()
    rest=$line
    for ((index = 0; index <= COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        if ((index == 0)) || [[ $rest == [[:space:]]* ]]; then
            words+=("$word")
        else
            words[${#words[@]}-1]+=$word
        fi
        rest=${rest#"${rest%%[![:space:]]*}"}
        rest=${rest#"$word"}
    done
    word=${words[${#words[@]}-1]}
    # what stands before the last cut is there already, and would be written twice; an @ belongs to what follows it
    cut=${word%"${word##*[${COMP_WORDBREAKS//[[:space:]]/}]}"}
    cut=${cut%@}
    COMPREPLY=()
    response=$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) VARIABLE=bash_complete "$1" 2>/dev/null)
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default; paths=1 ;;
            plain)
                COMPREPLY+=("${value#"$cut"}")
                # a model's name goes on with a version
                [[ $value == *@ ]] && compopt -o nospace
                ;;
        esac
    done <<< "$response"
    # bash completes paths by itself only where there is nothing else
    ((paths && ${#COMPREPLY[@]})) && mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "${word#"$cut"}")
    return 0
}
complete -o nosort -F _holdfast_completion holdfast
""".replace("VARIABLE", COMPLETION_VARIABLE)


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for a shell.

    It completes commands, options, and what they take: models, versions, aliases, DVC's remotes, plans, sources.
    Bash reads it in ~/.bashrc, zsh in ~/.zshrc after `compinit`, fish in ~/.config/fish/completions/holdfast.fish.

    \b
    Examples:
      eval "$(holdfast completion bash)"
      holdfast completion fish > ~/.config/fish/completions/holdfast.fish
    """
    if shell == "bash":
        click.echo(BASH, nl=False)
        return
    completion = get_completion_class(shell)
    assert completion is not None, "click knows the shells that the argument allows"
    click.echo(completion(root, {}, "holdfast", COMPLETION_VARIABLE).source())
