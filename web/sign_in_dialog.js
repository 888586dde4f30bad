// The dialog in which one signs in. The page is of no use without, so it stays until somebody has.

export class SignInDialog {
  #dialog = document.querySelector("#sign-in");
  #problem = document.querySelector("#sign-in-problem");

  /**
   * @param {string | null} issuer  its name; null where there is none, and a token is all there is
   * @param {{leave: () => Promise<void>, paste: (token: string) => void}} acts
   */
  constructor(issuer, { leave, paste }) {
    const there = document.querySelector("#sign-in-there");
    there.hidden = issuer === null;
    there.textContent = `Sign in with ${issuer}`;
    there.addEventListener("click", async () => {
      there.disabled = true;
      try {
        await leave();
      } catch (error) {
        this.#say(error.message);
        there.disabled = false;
      }
    });
    if (issuer === null) document.querySelector("#paste label").textContent = "Paste a token";
    document.querySelector("#paste").addEventListener("submit", (event) => {
      event.preventDefault();
      const token = document.querySelector("#token").value.trim().replace(/^Bearer /i, "");
      if (/^[\x21-\x7e]+$/.test(token)) paste(token);
      else this.#say("That is no token: it is one word, without spaces.");
    });
    this.#dialog.addEventListener("cancel", (event) => event.preventDefault());
    this.#dialog.addEventListener("close", () => this.#dialog.showModal()); // a browser may close it all the same
  }

  ask(problem = "") {
    this.#say(problem);
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  #say(problem) {
    this.#problem.textContent = problem;
    this.#problem.hidden = !problem;
  }
}
